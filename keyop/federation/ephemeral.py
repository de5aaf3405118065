"""A client without a data directory: what it publishes is the hub's to keep, what it hears is what comes just now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from keyop.configuration.settings import FederationSettings, HubReference, TlsSettings
from keyop.errors import CertificateError, ClosedError, ConnectionLost, HubRefused, PeerRefused
from keyop.federation.backoff import Backoff
from keyop.federation.connection import Connection
from keyop.federation.credentials import Credentials
from keyop.federation.dialling import dial, why
from keyop.federation.limits import Limits
from keyop.federation.record import Record
from keyop.federation.session import Batch, Closed, Session
from keyop.federation.wire import CloseCode, Hello

if TYPE_CHECKING:
    from keyop.federation.websocket import WebSocket

QUEUE_MESSAGES = 256
_SEEN_IDS = 1_024

OnRecord = Callable[[Record], Awaitable[None]]
OnFatal = Callable[[Exception], None]


class _Parcel:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size_bytes = 0
        self.futures: list[asyncio.Future[None]] = []


class _Queue:
    """Messages that wait for a connection, and those that are under way on it."""

    def __init__(self, max_batch_bytes: int) -> None:
        self._max_batch_bytes = max_batch_bytes
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._collected: _Parcel | None = None
        self._under_way: dict[int, _Parcel] = {}
        self.room = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= QUEUE_MESSAGES

    def add(self, line: bytes, future: asyncio.Future[None]) -> None:
        self._waiting.append((line, future))

    def collect(self, _most_bytes: int) -> _Parcel | None:
        """All that waits: callers wait for it, and there is no backlog behind which what is fresh would stand."""
        parcel = _Parcel()
        while self._waiting:
            line, future = self._waiting[0]
            if parcel.lines and parcel.size_bytes + len(line) + 4 > self._max_batch_bytes:
                break
            self._waiting.popleft()
            if future.cancelled():
                continue  # nobody waits for it any more, and nothing of it was sent
            parcel.lines.append(line)
            parcel.futures.append(future)
            parcel.size_bytes += len(line) + 4
        self.room.set()
        self._collected = parcel if parcel.lines else None
        return self._collected

    def sent(self, number: int) -> None:
        assert self._collected is not None
        self._under_way[number], self._collected = self._collected, None

    def acknowledged(self, number: int, _took_s: float) -> None:
        for future in self._under_way.pop(number).futures:
            if not future.done():
                future.set_result(None)

    def grown(self, _channels: Iterable[str]) -> bool:
        return False

    @property
    def again_s(self) -> float | None:
        return None

    def lose(self) -> None:
        """The connection is gone: nobody can know what became of what was under way."""
        for parcel in self._under_way.values():
            _fail(parcel.futures, ConnectionLost("the connection was lost: the hub may have the message or not"))
        self._under_way.clear()

    def give_up(self, error: Exception) -> None:
        """Nothing will be sent any more."""
        self.lose()
        _fail([future for _line, future in self._waiting], error)
        self._waiting.clear()
        self.room.set()


def _fail(futures: list[asyncio.Future[None]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


class _Handled:
    """A batch whose messages were handed on."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def committed(self) -> int:
        return self._count

    def abandon(self) -> None:
        pass


class _Live:
    """Records that come, handed on one after the other; each is acknowledged when it was."""

    def __init__(self, channels: set[str], on_record: OnRecord) -> None:
        self._channels = channels
        self._on_record = on_record
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def hand_over(self, batch: Batch) -> _Handled:
        count = 0
        for record in batch.records():
            head = record.head
            if record.fault is not None or head.channel not in self._channels or head.id in self._seen:
                continue
            self._seen[head.id] = None
            if len(self._seen) > _SEEN_IDS:
                self._seen.popitem(last=False)
            await self._on_record(record)
            count += 1
        return _Handled(count)


class EphemeralClient:
    """Keeps a connection to one hub while it is open. Belongs to one event loop."""

    def __init__(
        self,
        reference: HubReference,
        tls: TlsSettings,
        federation: FederationSettings,
        *,
        name: str | None,
        on_record: OnRecord,
        auto_reconnect: bool,
        on_fatal: OnFatal | None,
        logger: logging.Logger,
    ) -> None:
        """Raises `CertificateError`."""
        self.channels: set[str] = set()
        """What it listens to; after a change call `resubscribe`."""
        self._reference = reference
        self._credentials = Credentials(tls, "client")
        self._limits = Limits.of(federation)
        self._backoff = Backoff(federation)
        self._name = name or self._credentials.name
        self._on_record = on_record
        self._auto_reconnect = auto_reconnect
        self._on_fatal = on_fatal
        self._log = logger
        self._queue = _Queue(self._limits.max_batch_bytes)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._over: Exception | None = None
        self._said = ""
        self._is_resubscribing = False
        self._settled = asyncio.Event()  # set while there is a connection, and when there will be none any more

    @property
    def name(self) -> str:
        """What it calls itself: the name given, or the CN of its certificate."""
        return self._name

    def start(self) -> None:
        """Begin to connect."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    @property
    def trouble(self) -> str:
        """Why the last attempt failed; empty while there is a connection, or where none was tried."""
        return self._said

    async def reach(self) -> None:
        """Return when there is a connection. Raises what `publish` raises when there will be none."""
        self.start()
        if self._over is None:
            await self._settled.wait()
        if self._over is not None:
            raise self._over

    async def publish(self, line: bytes) -> None:
        """Return when the hub has it on disk. Raises `ConnectionLost`, `HubRefused`, `ClosedError`.

        Waits while the hub is away. Cancelled before it was sent, nothing of it is.
        """
        self.start()
        queue = self._queue
        while queue.is_full and self._over is None:
            queue.room.clear()
            await queue.room.wait()
        if self._over is not None:
            raise self._over
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.add(line, future)
        if self._connection is not None:
            self._connection.look()
        await future

    def resubscribe(self) -> None:
        """Channels have changed: they are said at the beginning of a connection only, so another one is made."""
        if self._connection is not None:
            self._is_resubscribing = True
            self._connection.drain()

    async def close(self) -> None:
        """Wait for what is under way, then leave. What still waits for the hub raises `ClosedError` where it waits."""
        if self._over is None:
            self._over = ClosedError("this messenger is closed")
        self._settled.set()
        if self._connection is not None:
            self._connection.drain()
        elif self._task is not None:
            self._task.cancel()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._queue.give_up(self._over)

    async def _run(self) -> None:
        while self._over is None:
            error: Exception
            with contextlib.suppress(CertificateError):  # half written, say: those that were read before will do
                await asyncio.to_thread(self._credentials.reload)
            try:
                context = self._credentials.client_context(verify_hostname=self._reference.verify_hostname)
                websocket, _hub = await dial(self._reference, context, self._limits)
            except (PeerRefused, ssl.SSLCertVerificationError) as refusal:
                self._end(HubRefused(f"{self._reference.addr}: {why(refusal)}"))
                return
            except OSError as failure:
                error = ConnectionLost(f"{self._reference.addr}: cannot be reached: {why(failure)}")
            else:
                closed = await self._serve(websocket)
                if closed.code == CloseCode.NOT_ALLOWED:
                    self._end(HubRefused(f"{self._reference.addr}: the hub refuses this client: {closed.reason}"))
                    return
                error = ConnectionLost(f"{self._reference.addr}: the connection was lost: {closed.reason}")
            if self._is_resubscribing:
                self._is_resubscribing = False
                continue
            if self._over is not None:
                return
            if not self._auto_reconnect:
                self._end(error)
                return
            if str(error) != self._said:
                self._said = str(error)
                self._log.warning("%s; it is tried again", error)
            await asyncio.sleep(self._backoff.next_s())

    def _end(self, error: Exception) -> None:
        """There is no way on."""
        self._over = error
        self._settled.set()
        self._queue.give_up(error)
        self._log.error("%s", error)
        if self._on_fatal is not None and isinstance(error, HubRefused):
            self._on_fatal(error)

    async def _serve(self, websocket: WebSocket) -> Closed:
        session = Session.client(
            self._name, sorted(self.channels), now_s=time.monotonic(), ephemeral=True, limits=self._limits
        )
        connection = Connection(websocket, session, self._greet, self._limits, self._log)
        self._connection = connection
        try:
            return await connection.run()
        finally:
            self._connection = None
            if self._over is None:
                self._settled.clear()
            self._queue.lose()

    async def _greet(self, connection: Connection, _hello: Hello) -> None:
        self._backoff.succeeded()
        self._said = ""
        connection.inbound = _Live(self.channels, self._on_record)
        connection.outbound = self._queue
        self._settled.set()
