"""What a hub and a client process have in common: the data directory, the credentials, and the connections."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from typing import Self

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, FederationBusy
from keyop.federation.audit import Audit
from keyop.federation.connection import Connection
from keyop.federation.credentials import Credentials
from keyop.federation.identity import Role
from keyop.federation.inbound import Inbound, KnownIds
from keyop.federation.limits import Limits
from keyop.federation.news import News
from keyop.federation.outbound import Outbound
from keyop.federation.positions import CLIENT_PREFIX, HUB_PREFIX, PositionNames
from keyop.federation.route import Link
from keyop.federation.session import Closed
from keyop.ipc import lease

CLOSE_TIMEOUT_S = 10.0


class Host:
    """This data directory in the federation, in one role. Made by `open`, on the loop that it is to work on."""

    def __init__(
        self, settings: Settings, role: Role, attachment: Attachment, held: lease.Lease, logger: logging.Logger
    ) -> None:
        self.settings = settings
        self.role = role
        self.attachment = attachment
        self.log = logger
        self.credentials = Credentials(settings.tls, role)
        self.limits = Limits.of(settings.federation)
        self.audit = Audit(attachment, logger)
        self.acknowledgements = Acknowledgements(attachment, asyncio.get_running_loop())
        self.known = KnownIds(attachment)
        self.positions = PositionNames(attachment.directory.run, HUB_PREFIX if role == "hub" else CLIENT_PREFIX)
        self.news = News(attachment, asyncio.get_running_loop(), self._grown)
        self._lease = held
        self._connections: set[Connection] = set()
        self._one_ended = asyncio.Event()

    @classmethod
    async def open(cls, settings: Settings, role: Role, logger: logging.Logger) -> Self:
        """Attach and read the credentials.

        Raises `FederationBusy` if such a process runs on this directory, `CertificateError`, `ConfigError`, and what
        `Attachment` raises.
        """
        if not (settings.tls.cert and settings.tls.key and settings.tls.ca):
            raise ConfigError("federation needs tls.cert, tls.key and tls.ca; `keyop keygen` makes them")
        Credentials(settings.tls, role)  # what is wrong with them is said before a writer is started
        attachment = await asyncio.to_thread(Attachment, settings, logger.parent)
        try:
            held = _only_one(attachment, role)
            try:
                return cls(settings, role, attachment, held, logger)
            except BaseException:
                held.release()
                raise
        except BaseException:
            await asyncio.to_thread(attachment.close)
            raise

    @property
    def name(self) -> str:
        """This instance's identity: the CN of its certificate."""
        return self.credentials.name

    @property
    def instance_name(self) -> str:
        """What it calls itself on the wire."""
        return self.settings.name or self.name

    def link(self, peer_name: str, features: frozenset[str]) -> Link:
        """The link to a peer."""
        link = Link(self.name, peer_name, features, self.limits.record_bytes)
        if link.is_namesake:
            self.log.warning(
                "%s: the peer's certificate has this host's own name: loops are stopped by message ids alone; "
                "give each host a certificate of its own",
                peer_name,
            )
            self.audit.event("peer_connected", peer=peer_name, detail="both certificates have the same name")
        return link

    def inbound(self, link: Link, allowed: Iterable[str] | None) -> Inbound:
        """A receiving half."""
        channels = None if allowed is None else frozenset(allowed)
        return Inbound(self.attachment, self.acknowledgements, link, self.known, self.audit, allowed=channels)

    def outbound(self, channels: Iterable[str], position_id: str | None, raw_id: str) -> Outbound:
        """A sending half."""
        return Outbound(self.attachment, channels, position_id, raw_id, self.limits, self.audit)

    async def run(self, connection: Connection) -> Closed:
        """Run a connection to its end, waking it when its channels grow."""
        self._connections.add(connection)
        try:
            return await connection.run()
        finally:
            self._connections.discard(connection)
            self._one_ended.set()

    def _grown(self, channels: set[str]) -> None:
        for connection in self._connections:
            if connection.outbound is not None and connection.outbound.grown(channels):
                connection.look()

    async def drain(self) -> None:
        """Finish the batches under way, and close every connection with 1001."""
        now_s = time.monotonic()
        for connection in self._connections:
            connection.session.drain(now_s)
            connection.look()
        try:
            async with asyncio.timeout(self.limits.drain_timeout_s + 1):
                while self._connections:
                    self._one_ended.clear()
                    await self._one_ended.wait()
        except TimeoutError:
            self.log.warning("%d connections did not end in time", len(self._connections))

    async def close(self) -> None:
        """Leave the data directory."""
        self.news.close()
        self.known.close()
        await asyncio.to_thread(self.attachment.close, CLOSE_TIMEOUT_S)
        self.acknowledgements.close()
        self._lease.release()


def _only_one(attachment: Attachment, role: Role) -> lease.Lease:
    path = attachment.directory.run / f"{role}.lock"
    held = lease.acquire(path)
    if held is None:
        raise FederationBusy(f"{attachment.directory.path}: a keyop {role} runs on this directory already")
    held.note(f"pid {os.getpid()}\n")
    return held
