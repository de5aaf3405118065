"""The hub: lets in who is on its list, and exchanges channels with everybody who is in."""

from __future__ import annotations

import asyncio
import logging
import time

from keyop.configuration.settings import PeerSettings, Settings
from keyop.errors import KeyopError
from keyop.federation.connection import Connection
from keyop.federation.durations import go_duration
from keyop.federation.host import ANOTHER_CA, LEAVE_S, Host
from keyop.federation.listener import Arrived, Listener
from keyop.federation.outbound import Outbound
from keyop.federation.peers import Known, Peer, PeerList, granted
from keyop.federation.rejections import Rejections
from keyop.federation.reload import Reload
from keyop.federation.session import Closed, Session, State
from keyop.federation.standing import Standing
from keyop.federation.sweep import Sweep
from keyop.federation.wire import CloseCode, Hello

_OPEN_TIMEOUT_S = 30.0
_LOOK_S = 5.0


class Hub:
    """One hub on one data directory."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._log = logger or logging.getLogger("keyop.hub")
        self._host: Host
        self._peers: PeerList
        self._listener: Listener
        self._tasks: list[asyncio.Task[None]] = []
        self.sweep: Sweep
        """What forgets peers that do not come back."""

    async def start(self) -> str:
        """Attach and listen; the addresses, with the port that was taken.

        Raises `FederationBusy`, `CertificateError`, `ConfigError`, `OSError` for the address, and what
        `keyop.attachment.Attachment` raises.
        """
        self._host = host = await Host.open(self._settings, "hub", self._log)
        try:
            self._rejections = Rejections(host.audit, self._log)
            context = host.credentials.server_context
            self._listener = Listener(context, host.limits, self._rejections, self._welcome, host.name, self._log)
            self._peers = PeerList(host)
            self.sweep = Sweep(host, self._peers)
            await self._new_settings(self._settings)
            addresses = self._listener.open(self._settings.hub.listen_addr)
        except BaseException:
            await host.close()
            raise
        reload = Reload(host, self._new_settings, "hub.allowed_peers")
        self._tasks = [asyncio.create_task(work()) for work in (self.sweep.run, self._look, reload.run)]
        return ", ".join(addresses)

    async def lost(self) -> KeyopError:
        """Wait until it can work no more; why."""
        return await self._host.lost()

    async def close(self) -> None:
        """Take nobody in any more, finish what is under way, close with 1001, and leave the data directory."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.close()
        await self._host.drain()
        await self._listener.gone(LEAVE_S)
        self._rejections.close()
        await self._host.close()

    # ---- one connection

    async def _welcome(self, arrived: Arrived) -> None:
        """Somebody has shown a certificate of our CA: serve it to its end."""
        host = self._host
        peer = Peer(arrived)
        session = Session.hub(host.instance_name, now_s=arrived.since_s, limits=host.limits)
        known = self._peers.get(peer.name)
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
        elif host.knew_by_another_ca(arrived.since_s):
            session.close(CloseCode.GOING_AWAY, ANOTHER_CA)
        try:
            closed = await host.run(connection)
        finally:
            try:
                await self._release(peer)
            finally:
                peer.ended.set()
        self._note_end(peer, closed)

    async def _greet(self, peer: Peer, hello: Hello) -> None:
        """Open the peer's positions and let it in."""
        known = self._peers.get(peer.name)
        assert known is not None
        peer.hello = hello
        connection = peer.connection
        async with known.turn:
            if connection.session.state is State.CLOSED:
                return  # it has gone while others had their turns, which take long where the disk is full
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

    async def _replace(self, known: Known, peer: Peer) -> None:
        """A host that comes again has lost its connection, or another one has its certificate: the older one goes."""
        older = known.durable
        if older is None:
            return
        self._log.warning("%s: a connection from %s replaces the one from %s", peer.name, peer.address, older.address)
        older.connection.close(CloseCode.REPLACED, "replaced")
        await older.ended.wait()

    async def _open(self, known: Known, entry: PeerSettings, peer: Peer) -> Outbound:
        """Its channels, and its place among the connections. Raises `KeyopError`, `OSError`."""
        host, hello = self._host, peer.hello
        channels = peer.granted = granted(hello.subscribe, entry)
        if not entry.subscribe:
            channels = known.affordable(channels, host.limits.subscribe_names, ephemeral=hello.ephemeral)
        if not hello.ephemeral:
            peer.connection.traffic = known.standing.traffic
        position_id = None if hello.ephemeral else host.positions.id_of(peer.name)
        raw_id = host.positions.prefix + peer.name
        async with self.sweep.turn:
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

    def _let_in(self, known: Known, peer: Peer, outbound: Outbound) -> None:
        host, connection, entry = self._host, peer.connection, known.entry
        if entry is None or granted(peer.hello.subscribe, entry) != peer.granted:
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
        detail += f" left_out={peer.left_out} (max_subscribe_names)" if peer.left_out else ""
        detail += " namesake" if link.is_namesake else ""
        host.audit.event("client_connected", peer=peer.name, peer_addr=peer.address, detail=detail)
        count = f"{len(peer.channels)} channel{'' if len(peer.channels) == 1 else 's'}"
        self._log.info("%s (%s) is connected, %s", peer.name, peer.address, count)

    def _note_end(self, peer: Peer, closed: Closed) -> None:
        if peer.inbound is None:
            if closed.code not in (CloseCode.NOT_ALLOWED, CloseCode.TRY_LATER):
                why = closed.reason or "it closed before its handshake"
                self._rejections.note(peer.address, f"it left: {why}" if closed.by_peer else why, peer.name)
            return
        detail = f"duration={go_duration(time.monotonic() - peer.arrived.since_s)}"
        if closed.code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            detail += f" err={closed.code} {closed.reason}".rstrip()
        self._host.audit.event("peer_disconnected", peer=peer.name, peer_addr=peer.address, detail=detail)
        self._log.info("%s (%s) is disconnected: %d %s", peer.name, peer.address, closed.code, closed.reason)

    async def _release(self, peer: Peer) -> None:
        """Give back what it had."""
        outbound, standing, known = peer.outbound, peer.standing, self._peers.get(peer.name)
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

    # ---- now and then

    async def _new_settings(self, settings: Settings) -> None:
        """Those of the start, and again when the configuration file has changed."""
        if not settings.hub.allowed_peers:
            self._log.warning("hub.allowed_peers is empty: nobody gets in")
        await self._peers.allow(settings.hub.allowed_peers)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._rejections.look()
