"""The client: keeps a connection to each of its hubs, for ever, and exchanges channels with them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from keyop.attachment.held_cursor import transaction
from keyop.configuration.settings import HubReference, Settings
from keyop.errors import PeerRefused
from keyop.federation.backoff import Backoff
from keyop.federation.connection import Connection
from keyop.federation.dialling import dial, why
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.outbound import Outbound
from keyop.federation.positions import CLIENT_PREFIX
from keyop.federation.session import Closed, Session
from keyop.federation.wire import CloseCode, Hello
from keyop.protocol import entry
from keyop.storage.offsets import OFFSET_SUFFIX

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class HubLink:
    """One hub of a client: its positions, and a connection whenever there is one."""

    def __init__(self, host: Host, reference: HubReference, logger: logging.Logger, taken: dict[str, str]) -> None:
        """``taken``: which hub (CN) is served by which address, shared by all links of a client."""
        self.reference = reference
        self.outbound: Outbound
        self.connection: Connection | None = None
        """None while the hub is away."""
        self.reconnects = 0
        """How often a connection was made, without the first one."""
        self.attempts = 0
        """Attempts to connect since the last success."""
        self._host = host
        self._log = logger
        self._taken = taken
        self._backoff = Backoff(host.settings.federation)
        self._said = ""

    async def open(self) -> None:
        """Open the positions: a channel that is new in the list begins at its end now, whether the hub is there or not.

        Raises `KeyopError`, `OSError`.
        """
        address = self.reference.addr
        position_id = self._host.positions.id_of(address)
        self.outbound = self._host.outbound(self.reference.publish, position_id, CLIENT_PREFIX + address)
        await self.outbound.open()
        for channel in self.reference.publish:
            self._host.news.follow(channel)

    async def close(self) -> None:
        """Give the positions back."""
        for channel in self.reference.publish:
            self._host.news.leave(channel)
        await self.outbound.close(time.monotonic() + CLOSE_TIMEOUT_S)

    async def run(self) -> None:
        """Connect, again and again, until cancelled."""
        while True:
            try:
                context = self._host.credentials.client_context(verify_hostname=self.reference.verify_hostname)
                websocket, name = await dial(self.reference, context, self._host.limits, self._log)
                closed = await self._serve(websocket, name)
            except (OSError, PeerRefused, TimeoutError, ValueError) as error:
                closed = None
                self._failed(why(error))
            await asyncio.sleep(self._wait_s(closed))

    def _wait_s(self, closed: Closed | None) -> float:
        if closed is not None and closed.code == CloseCode.REPLACED:
            self._log.error(
                "%s: the hub has replaced this connection by another one: does another host use the certificate of "
                "%s? Each host needs its own",
                self.reference.addr,
                self._host.name,
            )
            return self._backoff.longest_s()
        return self._backoff.next_s()

    async def _serve(self, websocket: ClientConnection, name: str) -> Closed:
        host, reference = self._host, self.reference
        if self._taken.setdefault(name, reference.addr) != reference.addr:
            await websocket.close()
            raise PeerRefused(f"it is {name!r}, which is served at {self._taken[name]} already")
        session = Session.client(host.instance_name, reference.subscribe, now_s=time.monotonic(), limits=host.limits)
        connection = Connection(websocket, session, lambda connection, hello: self._greet(name, hello), self._log)
        connection.bytes_per_s = reference.max_bytes_per_s
        self.connection = connection
        try:
            closed = await host.run(connection)
        finally:
            self.connection = None
            if self._taken.get(name) == reference.addr:
                del self._taken[name]
        self._ended(name, connection, closed)
        return closed

    async def _greet(self, name: str, _hello: Hello) -> None:
        connection, host = self.connection, self._host
        assert connection is not None
        features = connection.session.features
        link = host.link(name, features)
        self.outbound.connected(link, features)
        connection.inbound = host.inbound(link, self.reference.subscribe)
        connection.outbound = self.outbound
        if self.attempts or self.reconnects:
            self.reconnects += 1
        self.attempts = 0
        self._said = ""
        self._backoff.succeeded()
        host.audit.event("peer_connected", peer=name, peer_addr=self.reference.addr)
        self._log.info("%s: connected to %s", self.reference.addr, name)

    def _ended(self, name: str, connection: Connection, closed: Closed) -> None:
        reason = f"{closed.code} {closed.reason}".rstrip()
        if connection.outbound is None:
            self._failed(f"the hub closed before its handshake: {reason}")
            return
        self._log.warning("%s: disconnected from %s: %s", self.reference.addr, name, reason)
        self._host.audit.event(
            "peer_disconnected",
            peer=name,
            peer_addr=self.reference.addr,
            detail=f"unacked_bytes={self.outbound.behind_bytes}",
        )

    def _failed(self, reason: str) -> None:
        """Said when it begins and when the reason changes: a hub that is away for a month fills no log."""
        self.attempts += 1
        if reason != self._said:
            self._said = reason
            self._log.warning("%s: cannot be reached, and is tried again: %s", self.reference.addr, reason)
            detail = f"attempt={self.attempts} err={reason}"
            self._host.audit.event("peer_connected", peer_addr=self.reference.addr, detail=detail)


class Client:
    """All hubs of one data directory."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._log = logger or logging.getLogger("keyop.client")
        self.links: list[HubLink] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Attach, and begin to connect. A hub that cannot be reached is no error.

        Raises `FederationBusy`, `CertificateError`, `ConfigError`, and what `keyop.attachment.Attachment` raises.
        """
        self._host = host = await Host.open(self._settings, "client", self._log)
        taken: dict[str, str] = {}
        try:
            for reference in self._settings.client.hubs:
                link = HubLink(host, reference, self._log, taken)
                await link.open()
                self.links.append(link)
            await asyncio.to_thread(self._forget_others)
        except BaseException:
            await self.close()
            raise
        for text in host.credentials.warnings():
            self._log.warning("%s", text)
        self._tasks = [asyncio.create_task(link.run()) for link in self.links]

    def _forget_others(self) -> None:
        """A hub that was taken out of the configuration holds back no segments any more."""
        host = self._host
        ours = {host.positions.id_of(link.reference.addr) for link in self.links}
        ours |= {CLIENT_PREFIX + link.reference.addr for link in self.links}
        for path in sorted(host.attachment.directory.subscribers.glob(f"*/{CLIENT_PREFIX}*{OFFSET_SUFFIX}")):
            id = path.name.removesuffix(OFFSET_SUFFIX)
            if id in ours:
                continue
            channel = path.parent.name
            item = entry.encode(entry.FORGET, channel.encode(), id.encode())
            host.attachment.transact(transaction(item), channel, time.monotonic() + CLOSE_TIMEOUT_S)
            self._log.info("%s: removed, no such hub is configured", path)

    async def close(self) -> None:
        """Finish what is under way, close with 1001, and leave the data directory."""
        await self._host.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links:
            await link.close()
        await self._host.close()
