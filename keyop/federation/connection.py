"""One connection at work: a WebSocket, its session, and the two halves that read and write the data directory.

Three tasks: one reads frames, one commits what came, one sends. The session decides, and they do what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from keyop.errors import KeyopError
from keyop.federation.session import Acknowledged, Batch, Close, Closed, HelloReceived, Received, Session, State
from keyop.federation.wire import Hello

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection as WebSocket

# A peer that does not answer a close is left after this: the Go program never closes TCP by itself.
_CLOSE_TIMEOUT_S = 2.0
# A line that may be half written is looked at again after this.
_SECOND_LOOK_S = 0.012


class Receiving(Protocol):
    """What takes the batches that come: `keyop.federation.inbound.Inbound`, or an ephemeral client's handlers."""

    async def commit(self, batch: Batch) -> None:
        """Returns when the batch may be acknowledged. Raises `KeyopError` and `OSError` if it may not."""


class Parcel(Protocol):
    """One batch to send."""

    @property
    def lines(self) -> list[bytes]:
        """Envelopes without newlines."""

    @property
    def size_bytes(self) -> int:
        """Their length on the wire."""


class Sending(Protocol):
    """What gives the batches to send: `keyop.federation.outbound.Outbound`, or an ephemeral client's queue."""

    def collect(self) -> Parcel | None:
        """The next batch, None if there is none now."""

    def sent(self, number: int) -> None:
        """What was collected last is under way as batch ``number``."""

    def acknowledged(self, number: int, took_s: float) -> None:
        """The peer has it."""

    def grown(self, channels: Iterable[str]) -> bool:
        """Channels of the data directory have grown; whether that concerns this peer."""

    @property
    def doubtful(self) -> bool:
        """Whether to collect again soon although nobody wakes."""


OnHello = Callable[["Connection", Hello], Awaitable[None]]


class Connection:
    """Runs one connection to its end. Belongs to one event loop."""

    def __init__(self, websocket: WebSocket, session: Session, on_hello: OnHello, logger: logging.Logger) -> None:
        """``on_hello(connection, hello)`` is awaited once the peer has said its handshake.

        It sets `inbound` and `outbound`; a hub's also calls ``session.accept`` or ``session.refuse``.
        """
        self.session = session
        self.inbound: Receiving | None = None
        self.outbound: Sending | None = None
        self.last_progress_s = time.monotonic()
        """When a batch was last acknowledged, by either side."""
        self.round_trip_s = 0.0
        """From a batch's sending to its acknowledgement, the last one."""
        self.bytes_per_s = 0
        """The most to send; 0: no limit."""
        self._websocket = websocket
        self._on_hello = on_hello
        self._log = logger
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._closed: Closed | None = None
        self._may_send_s = 0.0

    async def run(self) -> Closed:
        """Work until the connection ends, and say how it did. Positions stay open: closing them is the caller's."""
        tasks = [asyncio.create_task(task()) for task in (self._receive, self._commit, self._send)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._websocket.transport.abort()
        for result in results:
            if isinstance(result, Exception):
                self._log.error("a federation connection ended", exc_info=result)
        self.session.connection_lost(reason="cancelled")
        await self._handle_events()
        assert self._closed is not None
        return self._closed

    def _is_over(self) -> bool:
        return self.session.state is State.CLOSED

    def take_longer_messages(self) -> None:
        """The handshake is done: the library takes what the session takes now."""
        self._websocket.protocol.max_message_size = self.session.max_message_bytes

    def look(self) -> None:
        """Something has changed that the sender should know: channels have grown, or the session was told something."""
        self._wake.set()

    # ---- the tasks

    async def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        websocket, session = self._websocket, self.session
        while not self._is_over():
            while not session.can_receive and not self._is_over():
                # Not reading is what stops a peer that sends faster than the disk takes.
                self._room.clear()
                await self._room.wait()
            try:
                message = await websocket.recv()
            except ConnectionClosed as closed:
                # What the peer said, else what the library said for us (a message that is too long, no pong).
                frame = closed.rcvd or closed.sent
                session.connection_lost(*((frame.code, frame.reason) if frame else ()))
            else:
                session.receive(message, time.monotonic())
            await self._handle_events()
            self._wake.set()

    async def _handle_events(self) -> None:
        for event in self.session.events():
            match event:
                case HelloReceived(hello):
                    await self._on_hello(self, hello)
                case Received(batch):
                    self._batches.put_nowait(batch)
                case Acknowledged(number, _last_id, took_s):
                    self.round_trip_s = took_s
                    self.last_progress_s = time.monotonic()
                    if self.outbound is not None:
                        self.outbound.acknowledged(number, took_s)
                case Closed():
                    self._closed = event

    async def _commit(self) -> None:
        session = self.session
        while True:
            batch = await self._batches.get()
            assert self.inbound is not None
            try:
                await self.inbound.commit(batch)
            except (KeyopError, OSError) as error:
                self._log.error("a batch was not committed, its sender keeps it: %s", error)
                session.commit_failed(batch.number, str(error))
            else:
                self.last_progress_s = time.monotonic()
                session.committed(batch.number, self.last_progress_s)
            self._room.set()
            self._wake.set()

    async def _send(self) -> None:
        session = self.session
        while True:
            self._wake.clear()
            again_s = self._fill()
            for frame in session.frames_to_send():
                if isinstance(frame, Close):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._websocket.close(frame.code, frame.reason), _CLOSE_TIMEOUT_S)
                    return
                await self._websocket.send(frame)
            if self._is_over():
                return
            await self._woken_or(again_s)
            session.tick(time.monotonic())
            await self._handle_events()

    def _fill(self) -> float | None:
        """Hand the session as many batches as it takes; when to look again although nobody wakes."""
        session, outbound = self.session, self.outbound
        if outbound is None:
            return None
        now_s = time.monotonic()
        while session.can_send:
            if self._may_send_s > now_s:
                return self._may_send_s
            parcel = outbound.collect()
            if parcel is None:
                return now_s + _SECOND_LOOK_S if outbound.doubtful else None
            outbound.sent(session.send(parcel.lines, now_s))
            self._limit(parcel, now_s)
        return None

    def _limit(self, parcel: Parcel, now_s: float) -> None:
        if self.bytes_per_s:
            self._may_send_s = max(self._may_send_s, now_s) + parcel.size_bytes / self.bytes_per_s

    async def _woken_or(self, again_s: float | None) -> None:
        due_s = min((due for due in (again_s, self.session.deadline_s) if due is not None), default=None)
        timeout_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass
