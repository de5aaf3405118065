"""One connection at work: a WebSocket, its session, and the two halves that read and write the data directory.

The session decides, the tasks here do what it says: one reads messages, two commit what came (to hand over and to wait
are apart, so that the next batch is on its way while the disk is busy with this one), one sends, one looks at the
clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from keyop.errors import KeyopError
from keyop.federation.limits import Limits
from keyop.federation.pace import Pace
from keyop.federation.session import Acknowledged, Batch, Close, Closed, HelloReceived, Received, Session, State
from keyop.federation.traffic import Traffic
from keyop.federation.wire import PIPELINED, CloseCode, Hello

if TYPE_CHECKING:
    from keyop.federation.websocket import WebSocket

CLOSE_TIMEOUT_S = 2.0
"""A peer that does not answer a close is left after this: the Go program never closes TCP by itself."""

_CLOCK_S = 2.0


class Handed(Protocol):
    """A batch that was taken."""

    async def committed(self) -> int:
        """Return when it may be acknowledged, with the number of messages that were new. Raises as `hand_over`."""

    def abandon(self) -> None:
        """The connection is gone, nobody waits for it."""


class Receiving(Protocol):
    """What takes the batches that come: `keyop.federation.inbound.Inbound`, or an ephemeral client's handlers."""

    async def hand_over(self, batch: Batch) -> Handed:
        """Take a batch. Raises `KeyopError` and `OSError` where it may not be acknowledged."""


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

    def collect(self, most_bytes: int) -> Parcel | None:
        """The next batch, None if there is none now. Raises `OSError`."""

    def sent(self, number: int) -> None:
        """What was collected last is under way as batch ``number``."""

    def acknowledged(self, number: int, took_s: float) -> None:
        """The peer has it."""

    def grown(self, channels: Iterable[str]) -> bool:
        """Channels of the data directory have grown; whether that concerns this peer."""

    @property
    def again_s(self) -> float | None:
        """After `collect` gave nothing: in how many seconds to try again; None: when `Connection.look` is called."""


OnHello = Callable[["Connection", Hello], Awaitable[None]]


class Connection:
    """Runs one connection to its end. Belongs to one event loop."""

    def __init__(
        self,
        websocket: WebSocket,
        session: Session,
        on_hello: OnHello,
        limits: Limits,
        logger: logging.Logger,
        *,
        traffic: Traffic | None = None,
        bytes_per_s: int = 0,
    ) -> None:
        """``on_hello(connection, hello)`` is awaited once the peer has said its handshake, and to its end even if the
        connection ends meanwhile. It sets `inbound` and `outbound`; a hub's also calls ``session.accept``.

        ``bytes_per_s``: the most to send; 0: no limit.
        """
        self.session = session
        self.inbound: Receiving | None = None
        self.outbound: Sending | None = None
        self.traffic = traffic or Traffic()
        """What has passed."""
        self._websocket = websocket
        self._on_hello = on_hello
        self._limits = limits
        self._log = logger
        self._bytes_per_s = bytes_per_s
        self._pace: Pace
        self._greeting: asyncio.Task[None] | None = None
        self._pinged_s = 0.0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._handed: asyncio.Queue[tuple[Batch, Handed]] = asyncio.Queue()
        self._closed: Closed | None = None

    async def run(self) -> Closed:
        """Work until the connection ends, and say how it did. Positions stay open: closing them is the caller's."""
        work = (self._receive, self._hand_over, self._confirm, self._send, self._watch_clock)
        tasks = [asyncio.create_task(self._guarded(task())) for task in work]
        try:
            self._react()
            await self._over.wait()
            if self._closed is not None and not self._closed.by_peer:
                # The sender says goodbye.
                await asyncio.wait(tasks[3:4], timeout=CLOSE_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while not self._handed.empty():
                self._handed.get_nowait()[1].abandon()
            self.session.connection_lost(reason="cancelled")
            self._react()
            if self._greeting is not None:
                await self._greeting
            await self._websocket.leave()
        assert self._closed is not None
        return self._closed

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except OSError as error:
            self._log.error("a connection is given up: %s", error)
            self.close(CloseCode.INTERNAL_ERROR, str(error))
        except Exception as error:
            self._log.exception("a connection is given up")
            self.close(CloseCode.INTERNAL_ERROR, type(error).__name__)

    # ---- what others tell it

    def look(self) -> None:
        """Something has changed that the sender should know: channels have grown, there is something to send."""
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """End it."""
        self.session.close(code, reason)
        self._react()

    def drain(self) -> None:
        """End it when what is under way has arrived."""
        self.session.drain(time.monotonic())
        self._react()

    # ---- the tasks

    async def _receive(self) -> None:
        from keyop.federation.websocket import WebSocketEnded

        session = self.session
        while not self._over.is_set():
            while not session.can_receive and not self._over.is_set():
                # Not reading is what stops a peer that sends faster than the disk takes.
                self._room.clear()
                await self._room.wait()
            try:
                message = await self._websocket.receive()
            except WebSocketEnded as ended:
                session.connection_lost(ended.code, ended.reason)
            else:
                session.receive(message, time.monotonic())
            self._react()

    def _react(self) -> None:
        """Act on what the session says has happened, and have the sender look."""
        for event in self.session.events():
            match event:
                case HelloReceived(hello):
                    self._greeting = asyncio.create_task(self._guarded(self._greet(hello)))
                case Received(batch):
                    self._batches.put_nowait(batch)
                case Acknowledged(number, _last_id, took_s):
                    self._pace.acknowledged(number, took_s)
                    self.traffic.round_trip(took_s)
                    if self.outbound is not None:
                        self.outbound.acknowledged(number, took_s)
                case Closed():
                    self._closed = event
                    self._over.set()
                    self._room.set()
        self._wake.set()

    async def _greet(self, hello: Hello) -> None:
        self._pace = Pace(self._limits, pipelined=PIPELINED in self.session.features, bytes_per_s=self._bytes_per_s)
        if self.session.state is State.OPEN:
            self._websocket.limit_messages(self._limits.max_message_bytes)  # a hub may send at once
        await self._on_hello(self, hello)
        if self.session.state is State.OPEN:
            self._websocket.limit_messages(self._limits.max_message_bytes)  # a client waits for its answer
        self._react()

    async def _hand_over(self) -> None:
        while True:
            batch = await self._batches.get()
            if self._greeting is not None:
                await asyncio.shield(self._greeting)  # a hub may be quicker than our look at its handshake
            if self.inbound is None:
                return
            try:
                self._handed.put_nowait((batch, await self.inbound.hand_over(batch)))
            except (KeyopError, OSError) as error:
                self._commit_failed(batch, error)

    async def _confirm(self) -> None:
        while True:
            batch, handed = await self._handed.get()
            try:
                new = await handed.committed()
            except (KeyopError, OSError) as error:
                self._commit_failed(batch, error)
            else:
                self.session.committed(batch.number, time.monotonic())
                self.traffic.came(new)
            self._room.set()
            self._react()

    def _commit_failed(self, batch: Batch, error: Exception) -> None:
        self._log.error("a batch was not committed, its sender keeps it: %s", error)
        self.session.commit_failed(batch.number, str(error))
        self._react()

    async def _send(self) -> None:
        session, websocket = self.session, self._websocket
        while True:
            self._wake.clear()
            wait_s = self._fill()
            for frame in session.frames_to_send():
                if isinstance(frame, Close):
                    await websocket.close(frame.code, frame.reason)
                    return
                await websocket.send(frame)
            if session.state is State.CLOSED:
                return
            if wait_s == 0:
                await asyncio.sleep(0)  # others have their turns in between
                continue
            if wait_s is None:
                await self._wake.wait()  # fifty idle peers do this twice a second each
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def _fill(self) -> float | None:
        """Hand the session a batch if it takes one; in how many seconds to try again, None: when somebody wakes."""
        session, outbound = self.session, self.outbound
        if outbound is None or not session.can_send:
            return None
        now_s = time.monotonic()
        if wait_s := self._pace.wait_s(now_s):
            return wait_s
        if not self._pace.has_room:
            return None
        parcel = outbound.collect(self._pace.turn_bytes)
        if parcel is None:
            return outbound.again_s
        number = session.send(parcel.lines, now_s)
        outbound.sent(number)
        self._pace.sent(number, parcel.size_bytes, now_s)
        return 0

    # ---- the clock

    async def _watch_clock(self) -> None:
        while True:
            now_s = time.monotonic()
            self.session.tick(now_s)
            self._look_at_silence(now_s)
            if self.session.state is State.CLOSED:  # nothing else comes of time alone
                self._react()
            due_s = self.session.deadline_s
            await asyncio.sleep(_CLOCK_S if due_s is None else min(_CLOCK_S, max(0.01, due_s - now_s)))

    def _look_at_silence(self, now_s: float) -> None:
        """A peer that is gone without a word says nothing, and answers no ping."""
        websocket, limits = self._websocket, self._limits
        if websocket.is_deaf or self.session.state is State.HELLO:
            return
        heard_s = websocket.heard_s
        if self._pinged_s > heard_s:
            if now_s - self._pinged_s > limits.ping_timeout_s:
                reason = f"no answer to a ping within {limits.ping_timeout_s:g} s"
                self.session.connection_lost(CloseCode.ABNORMAL, reason)
        elif now_s - max(heard_s, self._pinged_s) >= limits.ping_interval_s:
            self._pinged_s = now_s
            websocket.ping()
