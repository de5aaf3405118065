"""One hub of a client: reached for again and again, and served while it is there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from keyop.configuration.settings import HubReference
from keyop.errors import PeerRefused
from keyop.federation.backoff import Backoff
from keyop.federation.connection import Connection
from keyop.federation.dialling import dial, why
from keyop.federation.host import ANOTHER_CA, Host
from keyop.federation.outbound import Outbound
from keyop.federation.positions import CLIENT_PREFIX
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
                since_s = time.monotonic()
                websocket, name = await dial(self.reference, context, self._host.limits)
                if self._host.knew_by_another_ca(since_s):
                    websocket.abort()
                    raise ConnectionError(ANOTHER_CA)
                closed = await self._serve(websocket, name)
            except PeerRefused as error:
                self._failed(str(error), "is not the hub that is wanted")
            except (OSError, ValueError) as error:
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
        except BaseException:
            self.standing.is_away()
            raise
        finally:
            self.connection = None
            del self._taken[name]
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
        address, reason = self.reference.addr, f"{closed.code} {closed.reason}".rstrip()
        if connection.outbound is None:
            refused = closed.code == CloseCode.NOT_ALLOWED
            what = "does not let this host in" if refused else "cannot be reached"
            self._failed(f"the hub closed before its handshake: {reason}", what, refused=refused)
            return
        self.standing.is_away()
        self._said.clear()
        if self._host.is_leaving and not closed.by_peer:
            self._log.info("%s: left %s", address, name)
        else:
            self._log.warning("%s: disconnected from %s: %s", address, name, reason)
        detail = f"unacked_bytes={self.outbound.behind_bytes}"
        if closed.code not in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
            detail += f" err={reason}"
        self._host.audit.event("peer_disconnected", peer=name, peer_addr=address, detail=detail)

    def _failed(self, reason: str, what: str = "cannot be reached", *, refused: bool = False) -> None:
        """Each reason is said once: a hub that is away for a month fills no log."""
        self.standing.is_away(refused=refused)
        self.attempts += 1
        if reason not in self._said and len(self._said) < _REASONS_SAID:
            self._said.add(reason)
            self._log.warning("%s: %s, and is tried again: %s", self.reference.addr, what, reason)
            detail = f"attempt={self.attempts} err={reason}"
            self._host.audit.event("peer_connected", peer_addr=self.reference.addr, detail=detail)
