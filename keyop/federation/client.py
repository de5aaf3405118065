"""The client: keeps a connection to each of its hubs, for ever, and exchanges channels with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from keyop.configuration.settings import HubReference, Settings
from keyop.errors import KeyopError, PeerRefused
from keyop.federation import absent
from keyop.federation.backoff import Backoff
from keyop.federation.connection import Connection
from keyop.federation.dialling import dial, why
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.outbound import Outbound
from keyop.federation.positions import CLIENT_PREFIX
from keyop.federation.reload import Reload
from keyop.federation.session import Closed, Session
from keyop.federation.standing import Standing
from keyop.federation.wire import CloseCode, Hello

if TYPE_CHECKING:
    from keyop.federation.websocket import WebSocket

_OPEN_TIMEOUT_S = 30.0
_REASONS_SAID = 16
# A connection that stood for so long was good, whatever it was good for.
_STEADY_S = 60.0


class HubLink:
    """One hub of a client: its positions, and a connection whenever there is one."""

    def __init__(self, host: Host, reference: HubReference, logger: logging.Logger, taken: dict[str, str]) -> None:
        """``taken``: which hub (CN) is served by which address, shared by all links of a client."""
        self.reference = reference
        self.outbound: Outbound
        self.connection: Connection | None = None
        """None while the hub is away."""
        self.standing = Standing(reference.expect_hub, reference.addr, self._behind_bytes)
        """How it stands with this hub."""
        self.attempts = 0
        """Attempts to connect since the last success."""
        self._host = host
        self._log = logger
        self._taken = taken
        self._backoff = Backoff(host.settings.federation)
        # Why it could not be reached, since it last was.
        self._said: set[str] = set()

    def _behind_bytes(self) -> int:
        return self.outbound.behind_bytes

    async def open(self) -> None:
        """Open the positions: a channel that is new in the list begins at its end now, whether the hub is there or not.

        Raises `KeyopError`, `OSError`.
        """
        address, host = self.reference.addr, self._host
        self.outbound = host.outbound(
            self.reference.publish, host.positions.id_of(address), CLIENT_PREFIX + address, self.standing.traffic
        )
        await self.outbound.open(time.monotonic() + _OPEN_TIMEOUT_S)
        for channel in self.reference.publish:
            host.news.follow(channel)
        host.standings.add(self.standing)

    async def close(self) -> None:
        """Give the positions back."""
        self._host.standings.remove(self.standing)
        for channel in self.reference.publish:
            self._host.news.leave(channel)
        await self.outbound.close(self._host.deadline())

    async def run(self) -> None:
        """Connect, again and again, until cancelled or the host leaves."""
        while not self._host.is_leaving:
            closed = None
            try:
                context = self._host.credentials.client_context(verify_hostname=self.reference.verify_hostname)
                websocket, name = await dial(self.reference, context, self._host.limits)
                closed = await self._serve(websocket, name)
            except (OSError, PeerRefused, ValueError) as error:
                self._failed(why(error))
            except Exception as error:  # a bug must not end this link for ever
                self._log.exception("%s", self.reference.addr)
                self._failed(type(error).__name__)
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

    async def _serve(self, websocket: WebSocket, name: str) -> Closed:
        host, reference = self._host, self.reference
        if self._taken.setdefault(name, reference.addr) != reference.addr:
            websocket.abort()
            raise PeerRefused(f"it is {name!r}, which is served at {self._taken[name]} already")
        session = Session.client(host.instance_name, reference.subscribe, now_s=time.monotonic(), limits=host.limits)
        connection = self.connection = Connection(
            websocket,
            session,
            lambda _, hello: self._greet(name, hello),
            host.limits,
            self._log,
            traffic=self.standing.traffic,
            bytes_per_s=reference.max_bytes_per_s,
        )
        passed = self._passed
        since_s = time.monotonic()
        try:
            closed = await host.run(connection)
        finally:
            self.connection = None
            del self._taken[name]
            self.standing.is_away()
        if self._passed != passed or time.monotonic() - since_s >= _STEADY_S:
            # Not as soon as it stands: a hub that takes a connection and gives it up again is not to be asked twice a
            # second for months.
            self._backoff.succeeded()
        self._ended(name, connection, closed)
        return closed

    @property
    def _passed(self) -> int:
        return self.standing.traffic.sent + self.standing.traffic.received

    async def _greet(self, name: str, _hello: Hello) -> None:
        connection, host = self.connection, self._host
        assert connection is not None
        link = host.link(name, connection.session.features)
        self.outbound.connected(link)
        connection.inbound = host.inbound(link, self.reference.subscribe)
        connection.outbound = self.outbound
        self.standing.is_connected(name, self.reference.addr, lambda: connection.session.waiting_bytes)
        self.attempts = 0
        detail = "namesake" if link.is_namesake else ""
        host.audit.event("peer_connected", peer=name, peer_addr=self.reference.addr, detail=detail)
        self._log.info("%s: connected to %s", self.reference.addr, name)

    def _ended(self, name: str, connection: Connection, closed: Closed) -> None:
        reason = f"{closed.code} {closed.reason}".rstrip()
        if connection.outbound is None:
            refused = closed.code == CloseCode.NOT_ALLOWED
            self._failed(f"the hub closed before its handshake: {reason}", refused=refused)
            return
        self._said.clear()
        self._log.warning("%s: disconnected from %s: %s", self.reference.addr, name, reason)
        detail = f"unacked_bytes={self.outbound.behind_bytes}"
        if closed.code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            detail += f" err={reason}"
        self._host.audit.event("peer_disconnected", peer=name, peer_addr=self.reference.addr, detail=detail)

    def _failed(self, reason: str, *, refused: bool = False) -> None:
        """Each reason is said once: a hub that is away for a month fills no log."""
        self.standing.is_away(refused=refused)
        self.attempts += 1
        if reason not in self._said and len(self._said) < _REASONS_SAID:
            self._said.add(reason)
            self._log.warning("%s: cannot be reached, and is tried again: %s", self.reference.addr, reason)
            detail = f"attempt={self.attempts} err={reason}"
            self._host.audit.event("peer_connected", peer_addr=self.reference.addr, detail=detail)


class Client:
    """All hubs of one data directory."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._log = logger or logging.getLogger("keyop.client")
        self.links: list[HubLink] = []
        """One for each hub."""
        self._host: Host
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Attach, and begin to connect. A hub that cannot be reached is no error.

        Raises `FederationBusy`, `CertificateError`, `ConfigError`, and what `keyop.attachment.Attachment` raises.
        """
        self._host = host = await Host.open(self._settings, "client", self._log)
        taken: dict[str, str] = {}
        try:
            for reference in self._settings.client.hubs:
                if any(link.reference.addr == reference.addr for link in self.links):
                    self._log.warning("client.hubs has %s twice; only the first entry counts", reference.addr)
                    continue
                link = HubLink(host, reference, self._log, taken)
                await link.open()
                self.links.append(link)
            await asyncio.to_thread(self._forget_others)
        except BaseException:
            await self._leave()
            raise
        if not self.links:
            self._log.warning("client.hubs is empty: nothing is sent, and nothing comes")
        reload = Reload(host, _take_nothing)
        self._tasks = [asyncio.create_task(work()) for work in (reload.run, *(link.run for link in self.links))]

    def _forget_others(self) -> None:
        """A hub that was taken out of the configuration holds back no segments any more."""
        host = self._host
        ours = {host.positions.id_of(link.reference.addr) for link in self.links}
        ours |= {CLIENT_PREFIX + link.reference.addr for link in self.links}  # as a Go program up to 1.21 calls them
        for channel, id in absent.not_of(host.attachment, CLIENT_PREFIX, ours):
            try:
                absent.forget(host.attachment, channel, id, time.monotonic() + CLOSE_TIMEOUT_S)
            except KeyopError as error:
                self._log.warning("%s/%s: no such hub is configured, and it cannot be removed: %s", channel, id, error)
                continue
            self._log.info("%s/%s: removed, no such hub is configured", channel, id)
            with contextlib.suppress(OSError):
                host.positions.forget(id)

    async def close(self) -> None:
        """Finish what is under way, close with 1001, and leave the data directory."""
        await self._host.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave()

    async def _leave(self) -> None:
        for link in self.links:
            await link.close()
        await self._host.close()


async def _take_nothing(_settings: Settings) -> None:
    """Other hubs are other positions: that is for the next start."""
