"""The hub: listens, lets in who is on its list, and exchanges channels with everybody who is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from keyop.attachment.held_cursor import transaction
from keyop.configuration.address import host_and_port
from keyop.configuration.settings import PeerSettings, Settings
from keyop.errors import ChannelNameError, KeyopError, PeerRefused
from keyop.federation.connection import Connection
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.identity import peer_name
from keyop.federation.inbound import Inbound
from keyop.federation.outbound import Outbound
from keyop.federation.positions import HUB_PREFIX
from keyop.federation.session import Closed, Session
from keyop.federation.wire import CloseCode, Hello
from keyop.names import REPLAY_SUFFIX, check_channel
from keyop.protocol import entry
from keyop.storage.offsets import OFFSET_SUFFIX

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection

_REPLACED_TIMEOUT_S = 5.0
_SWEEP_EVERY_S = 3600.0


class _Peer:
    """A connection and what is to be told about it when it ends."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.since_s = time.monotonic()
        self.connection: Connection | None = None
        self.inbound: Inbound | None = None
        self.outbound: Outbound | None = None
        self.channels: tuple[str, ...] = ()
        self.features: frozenset[str] = frozenset()
        self.is_in = False
        self.ended = asyncio.Event()


class Hub:
    """One hub on one data directory."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._log = logger or logging.getLogger("keyop.hub")
        self._peers: dict[str, _Peer] = {}
        self._unfinished = 0  # connections whose handshake is awaited
        self._allowed = _allowed(settings.hub.allowed_peers)
        self._server: Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Attach and listen; the address, with the port that was taken.

        Raises `FederationBusy`, `CertificateError`, `ConfigError`, `OSError` for the address, and what
        `keyop.attachment.Attachment` raises.
        """
        from websockets.asyncio.server import serve

        self._host = host = await Host.open(self._settings, "hub", self._log)
        try:
            name, port = host_and_port(self._settings.hub.listen_addr)
            self._server = await serve(
                self._serve,
                name or None,
                port,
                ssl=host.credentials.server_context,
                compression=None,
                max_size=host.limits.handshake_bytes,
                ping_interval=host.limits.ping_interval_s,
                ping_timeout=host.limits.ping_timeout_s,
                open_timeout=host.limits.handshake_timeout_s,
                ssl_handshake_timeout=host.limits.handshake_timeout_s,
                close_timeout=2,
                logger=self._log.getChild("websocket"),
            )
        except BaseException:
            await host.close()
            raise
        if not self._allowed:
            self._log.warning("hub.allowed_peers is empty: nobody gets in")
        for text in host.credentials.warnings():
            self._log.warning("%s", text)
        self._sweeper = asyncio.create_task(self._sweep())
        return ", ".join(_shown(socket.getsockname()) for socket in self._server.sockets)

    async def close(self) -> None:
        """Take nobody in any more, finish what is under way, close with 1001, and leave the data directory."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self._sweeper is not None:
            self._sweeper.cancel()
        server.close(close_connections=False)
        await self._host.drain()
        for peer in list(self._peers.values()):
            await peer.ended.wait()
        await self._host.close()

    # ---- one connection

    async def _serve(self, websocket: ServerConnection) -> None:
        address = _shown(websocket.remote_address)
        try:
            name = peer_name(websocket.transport.get_extra_info("ssl_object"))
        except PeerRefused as error:
            self._log.warning("%s: refused: %s", address, error)
            self._host.audit.event("client_rejected", peer_addr=address, detail=str(error))
            await websocket.close(CloseCode.NOT_ALLOWED, "certificate refused")
            return
        if self._unfinished >= self._host.limits.max_unfinished:
            self._host.audit.event("client_rejected", peer=name, peer_addr=address, detail="too many handshakes")
            await websocket.close(CloseCode.TRY_LATER, "too many handshakes")
            return
        self._unfinished += 1
        peer = _Peer(name, address)
        session = Session.hub(self._host.instance_name, now_s=time.monotonic(), limits=self._host.limits)
        connection = Connection(websocket, session, lambda connection, hello: self._greet(peer, hello), self._log)
        peer.connection = connection
        if name not in self._allowed:
            self._log.warning("%s (%s) is not in hub.allowed_peers: refused", name, address)
            self._host.audit.event("client_rejected", peer=name)
            session.refuse()
        try:
            closed = await self._host.run(connection)
            self._note_end(peer, closed)
        finally:
            if not peer.is_in:
                self._unfinished -= 1
            await self._release(peer)
            peer.ended.set()

    async def _greet(self, peer: _Peer, hello: Hello) -> None:
        """Open the peer's positions and let it in."""
        connection = peer.connection
        assert connection is not None
        allowed = self._allowed[peer.name]
        if not hello.ephemeral:
            await self._replace(peer)
        peer.channels = tuple(_granted(hello.subscribe, allowed.subscribe))
        host = self._host
        peer.features = connection.session.features
        link = host.link(peer.name, peer.features)
        position_id = None if hello.ephemeral else host.positions.id_of(peer.name)
        outbound = host.outbound(peer.channels, position_id, HUB_PREFIX + peer.name)
        try:
            await outbound.open()
        except (KeyopError, OSError) as error:
            self._log.error("%s: its positions cannot be opened: %s", peer.name, error)
            connection.session.close(CloseCode.INTERNAL_ERROR, str(error))
            return
        outbound.connected(link, peer.features)
        connection.inbound = peer.inbound = host.inbound(link, allowed.publish or None)
        connection.outbound = peer.outbound = outbound
        for channel in peer.channels:
            host.news.follow(channel)
        connection.session.accept(time.monotonic())
        # It sends nothing before it has its answer, so this comes in time.
        connection.take_longer_messages()
        peer.is_in = True
        self._unfinished -= 1
        detail = f"addr={peer.address}"
        detail += f" sub=[{','.join(peer.channels)}]" if peer.channels else ""
        detail += f" pub=[{','.join(allowed.publish)}]" if allowed.publish else ""
        host.audit.event("client_connected", peer=peer.name, peer_addr=peer.address, detail=detail)
        self._log.info("%s (%s) is connected, %d channels", peer.name, peer.address, len(peer.channels))

    async def _replace(self, peer: _Peer) -> None:
        """A host that comes again has lost its connection, or another one has its certificate: the older one goes."""
        older = self._peers.get(peer.name)
        self._peers[peer.name] = peer
        if older is None or older.connection is None:
            return
        self._log.warning("%s: a connection from %s replaces the one from %s", peer.name, peer.address, older.address)
        older.connection.session.close(CloseCode.REPLACED, "replaced")
        older.connection.look()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(older.ended.wait(), _REPLACED_TIMEOUT_S)

    def _note_end(self, peer: _Peer, closed: Closed) -> None:
        if not peer.is_in:
            return
        took_s = time.monotonic() - peer.since_s
        detail = f"duration={_go_duration(took_s)}"
        if closed.code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            detail += f" err={closed.code} {closed.reason}".rstrip()
        self._host.audit.event("peer_disconnected", peer=peer.name, peer_addr=peer.address, detail=detail)
        self._log.info("%s (%s) is disconnected: %d %s", peer.name, peer.address, closed.code, closed.reason)

    async def _release(self, peer: _Peer) -> None:
        if peer.outbound is not None:
            for channel in peer.channels:
                self._host.news.leave(channel)
            await peer.outbound.close(time.monotonic() + CLOSE_TIMEOUT_S)
            peer.outbound.touch()  # how long ago it left is told by its offset files
        if self._peers.get(peer.name) is peer:
            del self._peers[peer.name]

    # ---- the list of peers

    def allow(self, peers: Iterable[PeerSettings]) -> None:
        """A new list of who may come. Who is no longer on it is disconnected; who is may publish what it says now."""
        self._allowed = _allowed(peers)
        for peer in self._peers.values():
            connection = peer.connection
            if connection is None:
                continue
            entry_ = self._allowed.get(peer.name)
            if entry_ is None:
                self._log.warning("%s was taken off hub.allowed_peers: disconnected", peer.name)
                connection.session.close(CloseCode.NOT_ALLOWED, "not in allowlist")
                connection.look()
            elif peer.inbound is not None:
                peer.inbound.allowed = frozenset(entry_.publish) or None

    # ---- peers that are gone for good

    async def _sweep(self) -> None:
        ttl_s = self._settings.hub.fed_client_offset_ttl
        if ttl_s <= 0:
            return
        while True:
            await asyncio.to_thread(self.sweep_positions, time.time() - ttl_s)
            await asyncio.sleep(min(_SWEEP_EVERY_S, max(60.0, ttl_s / 2)))

    def sweep_positions(self, older_than: float) -> list[str]:
        """Forget positions of peers that left before a time (seconds since 1970) and did not come back; their files."""
        connected = {self._host.positions.id_of(name) for name in list(self._peers)}
        swept = []
        for path in sorted(self._host.attachment.directory.subscribers.glob(f"*/{HUB_PREFIX}*{OFFSET_SUFFIX}")):
            id = path.name.removesuffix(OFFSET_SUFFIX)
            if id in connected or _mtime(path) > older_than:
                continue
            channel = path.parent.name
            item = entry.encode(entry.FORGET, channel.encode(), os.fsencode(id))
            try:
                self._host.attachment.transact(transaction(item), channel, time.monotonic() + CLOSE_TIMEOUT_S)
            except KeyopError as error:
                self._log.warning("%s: not removed: %s", path, error)
            else:
                self._log.info("%s: removed, the peer has been away for too long", path)
                swept.append(str(path))
        return swept


def _allowed(peers: Iterable[PeerSettings]) -> dict[str, PeerSettings]:
    """By name; the first entry of a name counts."""
    allowed: dict[str, PeerSettings] = {}
    for peer in peers:
        allowed.setdefault(peer.name, peer)
    return allowed


def _granted(asked: Iterable[str], allowed: tuple[str, ...]) -> Iterable[str]:
    """Channels that a peer gets, in the order in which it asked; names become paths."""
    for channel in asked:
        try:
            check_channel(channel)
        except ChannelNameError:
            continue
        if not channel.endswith(REPLAY_SUFFIX) and (not allowed or channel in allowed):
            yield channel


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _shown(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _go_duration(seconds: float) -> str:
    """As the audit logs of the Go program have it: 248ms, 1.447s, 1m2s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
