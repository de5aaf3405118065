"""The hub's door: takes connections, and hands on those that have shown a certificate of our CA and speak WebSocket.

Not `asyncio.Server`, which hides from everybody that a TLS handshake has failed, and why.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from keyop.configuration.address import host_and_port
from keyop.errors import FederationError, PeerRefused
from keyop.federation.arrivals import Arrival, Arrivals
from keyop.federation.identity import peer_name, reason
from keyop.federation.limits import Limits
from keyop.federation.rejections import Rejections

if TYPE_CHECKING:
    from keyop.federation.websocket import WebSocket

_BACKLOG = 128
# Descriptors or memory are short: they may come back.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORT_WAIT_S = 0.5


class Arrived:
    """Somebody at the door."""

    def __init__(self, address: str, since_s: float) -> None:
        self.address = address
        """host:port."""
        self.arrival: Arrival
        """To be left when its handshake is done."""
        self.since_s = since_s
        """When it came."""
        self.websocket: WebSocket
        self.name = ""
        """The CN of its certificate."""
        self.refusal = ""
        """Why this certificate will not do, although our CA has signed it."""


class Listener:
    """Listens at one address. ``welcome(arrived)`` is awaited for each that came through."""

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: Limits,
        rejections: Rejections,
        welcome: Callable[[Arrived], Awaitable[None]],
        own_name: str,
        logger: logging.Logger,
    ) -> None:
        self._context = context
        self._limits = limits
        self._rejections = rejections
        self._welcome = welcome
        self._own_name = own_name
        self._log = logger
        self._arrivals = Arrivals(limits.max_unfinished)
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._knocking: set[asyncio.Task[None]] = set()

    def open(self, address: str) -> list[str]:
        """Begin to listen; the addresses with the ports that were taken. Raises `FederationError`."""
        try:
            self._sockets = _bind(*host_and_port(address))
        except OSError as error:
            raise FederationError(f"hub.listen_addr = {address!r}: {_cannot_listen(error)}") from error
        self._accepting = [asyncio.create_task(self._accept(one)) for one in self._sockets]
        return [shown(one.getsockname()) for one in self._sockets]

    async def close(self) -> None:
        """Take nobody in any more; who stands at the door is sent away. Those who are in are the hub's business."""
        for task in (*self._accepting, *self._knocking):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._knocking, return_exceptions=True)
        for one in self._sockets:
            one.close()

    async def gone(self, timeout_s: float) -> None:
        """Return when all connections have ended, or after a time: one may wait for a writer that stands still."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        is_short = False
        while True:
            try:
                plain, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _SHORT:
                    if not is_short:
                        self._log.error("no connection can be taken: %s", error)
                    is_short = True
                    await asyncio.sleep(_SHORT_WAIT_S)
                continue  # else it had gone before it was taken
            is_short = False
            task = asyncio.create_task(self._receive(plain, address))
            for tasks in (self._tasks, self._knocking):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _receive(self, plain: socket.socket, address: tuple[object, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None
        since_s = time.monotonic()
        arrived = Arrived(shown(address), since_s)

        def turn_away() -> None:
            self._rejections.note(arrived.address, "too many handshakes", arrived.name)
            task.cancel()

        arrival = arrived.arrival = self._arrivals.enter(_neighbourhood(str(address[0])), turn_away)
        try:
            await self._shake_hands(plain, arrived)
        except Exception as error:
            if not isinstance(error, OSError):  # TimeoutError is one
                self._log.exception("%s: a bug in its handshake", arrived.address)
            self._rejections.note(arrived.address, self._why(error), arrived.name)
        else:
            self._knocking.discard(task)
            await self._welcome(arrived)
        finally:
            arrival.leave()

    def _why(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLError):
            return reason(error)
        if isinstance(error, ConnectionAbortedError):
            return f"{error}; does its client.hubs[].expect_hub ask for another name than {self._own_name!r}?"
        if isinstance(error, TimeoutError):
            return f"no handshake within {self._limits.handshake_timeout_s:g} s"
        return str(error) or "it closed before its handshake"

    async def _shake_hands(self, plain: socket.socket, arrived: Arrived) -> None:
        from keyop.federation.websocket import accept

        limits = self._limits
        plain.setblocking(False)
        websocket = None
        try:
            async with asyncio.timeout(limits.handshake_timeout_s):
                try:
                    await _first_word(plain)
                except BaseException:
                    plain.close()
                    raise
                websocket = await accept(plain, self._context, limits.handshake_bytes, compression=limits.compression)
                await websocket.secure()
                try:
                    arrived.name = peer_name(websocket.certificate)
                except PeerRefused as refusal:
                    arrived.refusal = str(refusal)
                await websocket.shake_hands()
        except Exception:
            if websocket is not None:
                await websocket.leave()
            raise
        except BaseException:
            if websocket is not None:
                websocket.abort()
            raise
        arrived.websocket = websocket


async def _first_word(plain: socket.socket) -> None:
    """Wait until something comes: TLS for those who say nothing would cost 100 KiB each."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(plain, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(plain)


def _cannot_listen(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or take another port"
    if error.errno == errno.EACCES:
        return "ports below 1024 need privileges; take another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address; :7740 listens at all that it has"
    return f"cannot listen there: {error.strerror or error}"


def _neighbourhood(host: str) -> str:
    """Of IPv6 the first half: whoever has one address has 2 ** 64 of them."""
    return host if "." in host else ":".join(host.split(":")[:4])


def _bind(host: str, port: int) -> list[socket.socket]:
    if host in ("", "::") and socket.has_dualstack_ipv6():
        try:
            return [_listening(("::", port), socket.AF_INET6, dualstack=True)]
        except OSError as error:
            if host or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    if not host:
        return [_listening(("0.0.0.0", port), socket.AF_INET)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [_listening(address, family) for family, address in dict.fromkeys((one[0], one[4]) for one in found)]


def _listening(address: tuple[object, ...], family: int, *, dualstack: bool = False) -> socket.socket:
    made = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dualstack)
    made.setblocking(False)
    return made


def shown(address: tuple[object, ...]) -> str:
    """A socket's address as users write it."""
    host, port = str(address[0]).removeprefix("::ffff:"), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
