"""The floor of a connection: the same library, TLS and frames, and nothing behind them."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.contender import Contender, Sender
from benchmarks.crew import Start, run_crew
from benchmarks.federation.site import Tls
from keyop.configuration.settings import TlsSettings
from keyop.federation.credentials import Credentials
from keyop.federation.wire import frame_of

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection

T = TypeVar("T")
Serve = Callable[["Connection"], Awaitable[None]]
_WINDOW = 8


class Echo(Contender):
    """Stands in the table beside keyop."""

    key = "echo"
    label = "TLS WebSocket (floor)"
    modes = ()
    receives = False

    def absent(self) -> str | None:
        """The library is a part of what is installed for keyop."""
        try:
            importlib.import_module("websockets")
        except ImportError as error:
            return str(error)
        return None

    def start(self, place: Path, strict: bool) -> None:
        """There is nothing to start: it has no store."""

    def sender(self, channels: list[str]) -> Sender:
        """It takes part in the measurements of this package only."""
        raise NotImplementedError


def there_and_back(hub: Tls, client: Tls, record: bytes, count: int, gap_s: float) -> list[int]:
    """Send a record as a frame of its own, and wait until the other process has sent it back: nanoseconds, each."""
    frame = frame_of([record])

    async def echo(websocket: Connection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def measure(websocket: Connection) -> list[int]:
        took_ns = []
        for _ in range(count):
            await asyncio.sleep(gap_s)
            began = time.monotonic_ns()
            await websocket.send(frame)
            await websocket.recv()
            took_ns.append(time.monotonic_ns() - began)
        return took_ns

    return _run(hub, client, echo, measure)


def one_way(hub: Tls, client: Tls, record: bytes, per_frame: int, frames: int) -> float:
    """Send frames of as many records, up to eight at once, each answered by a short text: records a second."""
    frame = frame_of([record] * per_frame)

    async def answer(websocket: Connection) -> None:
        async for _ in websocket:
            await websocket.send('{"last_id":"01a20d57-1ebd-71d5-95af-a68c64e1ed18"}')

    async def measure(websocket: Connection) -> float:
        began = time.monotonic()
        for number in range(frames):
            if number >= _WINDOW:
                await websocket.recv()
            await websocket.send(frame)
        for _ in range(min(_WINDOW, frames)):
            await websocket.recv()
        return frames * per_frame / (time.monotonic() - began)

    return _run(hub, client, answer, measure)


def _run(hub: Tls, client: Tls, serve_one: Serve, measure: Callable[[Connection], Awaitable[T]]) -> T:
    """Two processes: one serves, one measures."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    async def serve() -> None:
        from websockets.asyncio.server import serve as serve_websocket

        ended = asyncio.Event()

        async def handle(websocket: Connection) -> None:
            await serve_one(websocket)
            ended.set()

        async with serve_websocket(handle, sock=listener, ssl=_context(hub, "hub"), compression=None, max_size=None):
            await ended.wait()

    async def dial() -> T:
        from websockets.asyncio.client import connect

        async with connect(
            f"wss://127.0.0.1:{port}/", ssl=_context(client, "client"), compression=None, proxy=None
        ) as websocket:
            return await measure(websocket)

    def work(rank: int, start: Start) -> T | None:
        start()
        if rank == 0:
            asyncio.run(serve())
            return None
        return asyncio.run(dial())

    try:
        result = run_crew(2, work)[1]
    finally:
        listener.close()
    assert result is not None
    return result


def _context(tls: Tls, role: str) -> ssl.SSLContext:
    settings = TlsSettings(cert=tls.cert, key=tls.key, ca=tls.ca)
    if role == "hub":
        return Credentials(settings, "hub").server_context
    return Credentials(settings, "client").client_context()
