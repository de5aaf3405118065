"""The hub: lets in who is on its list, and exchanges channels with everybody who is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

from keyop.configuration.settings import PeerSettings, Settings
from keyop.errors import KeyopError
from keyop.federation import absent
from keyop.federation.connection import Connection
from keyop.federation.durations import go_duration
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.inbound import Inbound
from keyop.federation.listener import Arrived, Listener
from keyop.federation.outbound import Outbound
from keyop.federation.rejections import Rejections
from keyop.federation.reload import Reload
from keyop.federation.session import Closed, Session, State
from keyop.federation.standing import Standing
from keyop.federation.wire import CloseCode, Hello

_OPEN_TIMEOUT_S = 30.0
_LOOK_S = 5.0
_SWEEP_EVERY_S = 3600.0


class _Peer:
    """A connection, and what belongs to it."""

    def __init__(self, arrived: Arrived) -> None:
        self.name = arrived.name
        self.arrived = arrived
        self.hello = Hello("")
        self.connection: Connection
        self.inbound: Inbound | None = None
        self.outbound: Outbound | None = None
        self.standing: Standing | None = None
        self.ended = asyncio.Event()

    @property
    def address(self) -> str:
        return self.arrived.address

    @property
    def channels(self) -> tuple[str, ...]:
        """What it gets."""
        return tuple(self.outbound.feeds) if self.outbound is not None else ()


class _Known:
    """A peer that is or was on the list, there or away."""

    def __init__(self, entry: PeerSettings, standing: Standing, behind: absent.Behind) -> None:
        # None: it was taken off.
        self.entry: PeerSettings | None = entry
        self.standing = standing
        self.behind = behind
        # Its durable connection. There is one; ephemeral ones may be beside it.
        self.durable: _Peer | None = None
        self.ephemeral: set[_Peer] = set()
        # One after the other: a new one finds the positions given back.
        self.turn = asyncio.Lock()

    @property
    def connections(self) -> list[_Peer]:
        return [*([self.durable] if self.durable else []), *self.ephemeral]


class Hub:
    """One hub on one data directory."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._log = logger or logging.getLogger("keyop.hub")
        self._known: dict[str, _Known] = {}
        self._host: Host
        self._listener: Listener
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeping = asyncio.Lock()

    async def start(self) -> str:
        """Attach and listen; the addresses, with the port that was taken.

        Raises `FederationBusy`, `CertificateError`, `ConfigError`, `OSError` for the address, and what
        `keyop.attachment.Attachment` raises.
        """
        self._host = host = await Host.open(self._settings, "hub", self._log)
        try:
            self._rejections = Rejections(host.audit, self._log)
            self._listener = Listener(
                host.credentials.server_context, host.limits, self._rejections, self._welcome, self._log
            )
            await self.allow(self._settings.hub.allowed_peers)
            addresses = self._listener.open(self._settings.hub.listen_addr)
        except BaseException:
            await host.close()
            raise
        if not self._known:
            self._log.warning("hub.allowed_peers is empty: nobody gets in")
        reload = Reload(host, self._new_settings, "hub.allowed_peers")
        self._tasks = [asyncio.create_task(work()) for work in (self._sweep, self._look, reload.run)]
        return ", ".join(addresses)

    async def close(self) -> None:
        """Take nobody in any more, finish what is under way, close with 1001, and leave the data directory."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.close()
        await self._host.drain()
        await self._listener.gone()
        self._rejections.close()
        await self._host.close()

    # ---- one connection

    async def _welcome(self, arrived: Arrived) -> None:
        """Somebody has shown a certificate of our CA: serve it to its end."""
        host = self._host
        peer = _Peer(arrived)
        session = Session.hub(host.instance_name, now_s=arrived.since_s, limits=host.limits)
        known = self._known.get(peer.name)
        connection = peer.connection = Connection(
            arrived.websocket,
            session,
            lambda _, hello: self._greet(peer, hello),
            host.limits,
            self._log,
        )
        arrived.arrival.turn_away = lambda: connection.close(CloseCode.TRY_LATER, "too many handshakes")
        if known is None or known.entry is None or arrived.refusal:
            self._rejections.note(peer.address, arrived.refusal or "not in hub.allowed_peers", peer.name)
            session.refuse()
        try:
            closed = await host.run(connection)
        finally:
            try:
                await self._release(peer)
            finally:
                peer.ended.set()
        self._note_end(peer, closed)

    async def _greet(self, peer: _Peer, hello: Hello) -> None:
        """Open the peer's positions and let it in."""
        known = self._known[peer.name]
        peer.hello = hello
        connection = peer.connection
        async with known.turn:
            if known.entry is None:
                connection.close(CloseCode.NOT_ALLOWED, "not in allowlist")
                return
            if not hello.ephemeral:
                await self._replace(known, peer)
            elif len(known.connections) >= self._host.limits.max_peer_connections:
                self._rejections.note(peer.address, "too many connections of one certificate", peer.name)
                connection.close(CloseCode.TRY_LATER, "too many connections of one certificate")
                return
            try:
                outbound = await self._open(known, known.entry, peer)
            except (KeyopError, OSError) as error:
                self._log.error("%s: its positions cannot be opened: %s", peer.name, error)
                connection.close(CloseCode.INTERNAL_ERROR, str(error))
                return
            self._let_in(known, peer, outbound)

    async def _replace(self, known: _Known, peer: _Peer) -> None:
        """A host that comes again has lost its connection, or another one has its certificate: the older one goes."""
        older = known.durable
        if older is None:
            return
        self._log.warning("%s: a connection from %s replaces the one from %s", peer.name, peer.address, older.address)
        older.connection.close(CloseCode.REPLACED, "replaced")
        await older.ended.wait()

    async def _open(self, known: _Known, entry: PeerSettings, peer: _Peer) -> Outbound:
        """Its channels, and its place among the connections. Raises `KeyopError`, `OSError`."""
        host, hello = self._host, peer.hello
        channels = _granted(hello.subscribe, entry)
        if not hello.ephemeral:
            peer.connection.traffic = known.standing.traffic
        position_id = None if hello.ephemeral else host.positions.id_of(peer.name)
        raw_id = host.positions.prefix + peer.name
        async with self._sweeping:
            outbound = host.outbound(channels, position_id, raw_id, peer.connection.traffic)
            await outbound.open(time.monotonic() + _OPEN_TIMEOUT_S)
            peer.outbound = outbound
        for channel in channels:
            host.news.follow(channel)
        if hello.ephemeral:
            known.ephemeral.add(peer)
            peer.standing = Standing(peer.name, peer.address, lambda: outbound.behind_bytes, peer.connection.traffic)
        else:
            known.durable = peer
            peer.standing = known.standing
            known.standing.behind_bytes = lambda: outbound.behind_bytes
        return outbound

    def _let_in(self, known: _Known, peer: _Peer, outbound: Outbound) -> None:
        host, connection, entry = self._host, peer.connection, known.entry
        if entry is None or _granted(peer.hello.subscribe, entry) != peer.channels:
            connection.close(CloseCode.GOING_AWAY, "the list of peers has changed, come again")
        if entry is None or connection.session.state is State.CLOSED:
            return
        link = host.link(peer.name, connection.session.features)
        outbound.connected(link)
        connection.inbound = peer.inbound = host.inbound(link, entry.publish or None)
        connection.outbound = outbound
        connection.session.accept(time.monotonic())
        peer.arrived.arrival.leave()
        assert peer.standing is not None
        peer.standing.is_connected(peer.name, peer.address, lambda: connection.session.waiting_bytes)
        if peer.hello.ephemeral:
            host.standings.add(peer.standing)
        detail = f"addr={peer.address}"
        detail += f" sub=[{','.join(peer.channels)}]" if peer.channels else ""
        detail += f" pub=[{','.join(entry.publish)}]" if entry.publish else ""
        detail += f" refused={peer.hello.refused_count} ({', '.join(peer.hello.refused)})" if peer.hello.refused else ""
        detail += " namesake" if link.is_namesake else ""
        host.audit.event("client_connected", peer=peer.name, peer_addr=peer.address, detail=detail)
        self._log.info("%s (%s) is connected, %d channels", peer.name, peer.address, len(peer.channels))

    def _note_end(self, peer: _Peer, closed: Closed) -> None:
        if peer.inbound is None:
            if closed.code not in (CloseCode.NOT_ALLOWED, CloseCode.TRY_LATER):
                self._rejections.note(peer.address, closed.reason or "it closed before its handshake", peer.name)
            return
        detail = f"duration={go_duration(time.monotonic() - peer.arrived.since_s)}"
        if closed.code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            detail += f" err={closed.code} {closed.reason}".rstrip()
        self._host.audit.event("peer_disconnected", peer=peer.name, peer_addr=peer.address, detail=detail)
        self._log.info("%s (%s) is disconnected: %d %s", peer.name, peer.address, closed.code, closed.reason)

    async def _release(self, peer: _Peer) -> None:
        """Give back what it had."""
        outbound, standing, known = peer.outbound, peer.standing, self._known.get(peer.name)
        if outbound is None or standing is None:
            return
        for channel in outbound.feeds:
            self._host.news.leave(channel)
        await outbound.close(self._host.deadline())
        outbound.touch()  # how long ago it left is told by its offset files
        if known is not None:
            known.ephemeral.discard(peer)
            if known.durable is peer:
                known.durable = None
                known.behind.positions |= {channel: feed.position for channel, feed in outbound.feeds.items()}
                known.standing.behind_bytes = known.behind.bytes
        standing.is_away()
        if peer.hello.ephemeral:
            self._host.standings.remove(standing)

    # ---- the list of peers

    async def allow(self, peers: Iterable[PeerSettings]) -> None:
        """A new list of who may come. Who is not on it any more is disconnected; who gets other channels now has to
        come again; who may publish what counts from here on."""
        entries: dict[str, PeerSettings] = {}
        for entry in peers:
            entries.setdefault(entry.name, entry)  # the first of a name counts
        for name, known in self._known.items():
            if known.entry is not None and name not in entries:
                self._banish(name, known)
        new = [entry for name, entry in entries.items() if name not in self._known]
        if new:
            positions = await asyncio.to_thread(
                absent.all_positions, self._host.attachment, self._host.positions.prefix
            )
            for entry in new:
                self._add(entry, positions)
        for name, entry in entries.items():
            if self._known[name].entry != entry:
                self._change(self._known[name], entry)

    def _add(self, entry: PeerSettings, positions: dict[str, absent.Positions]) -> None:
        host = self._host
        behind = absent.Behind(host.attachment, positions.get(host.positions.id_of(entry.name), {}))
        standing = Standing(entry.name, "", behind.bytes)
        host.standings.add(standing)
        self._known[entry.name] = _Known(entry, standing, behind)

    def _banish(self, name: str, known: _Known) -> None:
        self._log.warning("%s was taken off hub.allowed_peers", name)
        known.entry = None
        self._host.standings.remove(known.standing)
        for peer in known.connections:
            peer.connection.close(CloseCode.NOT_ALLOWED, "not in allowlist")

    def _change(self, known: _Known, entry: PeerSettings) -> None:
        self._log.info("%s: its entry in hub.allowed_peers has changed", entry.name)
        if known.entry is None:
            self._host.standings.add(known.standing)
        known.entry = entry
        for peer in known.connections:
            if peer.channels != _granted(peer.hello.subscribe, entry):
                peer.connection.close(CloseCode.GOING_AWAY, "its channels have changed, come again")
            elif peer.inbound is not None:
                peer.inbound.allowed = frozenset(entry.publish) or None

    async def _new_settings(self, settings: Settings) -> None:
        """The configuration file has changed."""
        await self.allow(settings.hub.allowed_peers)

    # ---- now and then

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._rejections.look()

    async def _sweep(self) -> None:
        ttl_s = self._settings.hub.fed_client_offset_ttl
        if ttl_s <= 0:
            return
        while True:
            try:
                await self.sweep_positions(time.time() - ttl_s)
            except (KeyopError, OSError) as error:
                self._log.warning("positions of peers that are gone were not removed: %s", error)
            await asyncio.sleep(min(_SWEEP_EVERY_S, max(60.0, ttl_s / 2)))

    async def sweep_positions(self, before_s: float) -> list[tuple[str, str]]:
        """Forget the positions of peers that left before a time (seconds since 1970) and did not come back.

        (channel, id) of what was forgotten.
        """
        host = self._host
        swept = []
        for channel, id in await asyncio.to_thread(
            absent.left_before, host.attachment, host.positions.prefix, before_s
        ):
            async with self._sweeping:
                here = [name for name, known in self._known.items() if known.durable is not None]
                if id in map(host.positions.id_of, here):
                    continue
                try:
                    deadline = time.monotonic() + CLOSE_TIMEOUT_S
                    await asyncio.to_thread(absent.forget, host.attachment, channel, id, deadline)
                except KeyopError as error:
                    self._log.warning("%s/%s: not removed: %s", channel, id, error)
                    continue
                self._log.info("%s/%s: removed, the peer has been away for too long", channel, id)
                swept.append((channel, id))
                if not await asyncio.to_thread(absent.is_used, host.attachment, id):
                    with contextlib.suppress(OSError):
                        host.positions.forget(id)
                for known in self._known.values():
                    if host.positions.id_of(known.standing.name) == id:
                        known.behind.positions.pop(channel, None)
        return swept


def _granted(asked: Iterable[str], entry: PeerSettings) -> tuple[str, ...]:
    """Channels that a peer gets, in the order in which it asked."""
    return tuple(channel for channel in asked if not entry.subscribe or channel in entry.subscribe)
