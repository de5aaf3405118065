"""What a hub and a client process have in common: the data directory, the credentials, and the connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from typing import Self

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, DataDirectoryError, FederationBusy, KeyopError
from keyop.federation.audit import Audit
from keyop.federation.connection import Connection
from keyop.federation.credentials import Credentials
from keyop.federation.identity import Role
from keyop.federation.inbound import Inbound
from keyop.federation.known_ids import KnownIds
from keyop.federation.limits import Limits
from keyop.federation.news import News
from keyop.federation.outbound import Outbound
from keyop.federation.positions import CLIENT_PREFIX, HUB_PREFIX, PositionNames
from keyop.federation.route import Link
from keyop.federation.session import Closed
from keyop.federation.standing import Standings
from keyop.federation.traffic import Traffic
from keyop.federation.wire import CloseCode
from keyop.ipc import layout, lease

CLOSE_TIMEOUT_S = 10.0
ANOTHER_CA = "another CA, come again"
_LOOK_S = 0.5
# Behind the time for the batches under way: for positions, and for what the ring holds.
LEAVE_S = 2.0


class Host:
    """This data directory in the federation, in one role. Made by `open`, on the loop that it is to work on."""

    def __init__(
        self, settings: Settings, role: Role, attachment: Attachment, held: lease.Lease, logger: logging.Logger
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.role = role
        self.attachment = attachment
        self.log = logger
        self.credentials = Credentials(settings.tls, role)
        self.limits = Limits.of(settings.federation)
        self.audit = Audit(attachment, logger, loop)
        self.acknowledgements = Acknowledgements(attachment, loop)
        self.known = KnownIds(attachment)
        self.positions = PositionNames(attachment.directory.run, HUB_PREFIX if role == "hub" else CLIENT_PREFIX)
        self.standings = Standings(attachment)
        self.news = News(attachment, loop, self._grown)
        self._lease = held
        self._connections: set[Connection] = set()
        self._one_ended = asyncio.Event()
        self._namesakes: set[str] = set()
        self._leave_by_s = float("inf")
        self._loss: asyncio.Future[KeyopError] = loop.create_future()
        self._ca_since_s = float("-inf")
        self.is_leaving = False
        """Whether it stops: no new connections."""
        # Answers that nobody waits for any more would fill the table.
        attachment.tick_listeners.append(self._take_unclaimed)
        self._looking = asyncio.create_task(self._look())

    @classmethod
    async def open(cls, settings: Settings, role: Role, logger: logging.Logger) -> Self:
        """Attach and read the credentials.

        Raises `FederationBusy` if such a process runs on this directory, `CertificateError`, `ConfigError`, and what
        `Attachment` raises.
        """
        if not (settings.tls.cert and settings.tls.key and settings.tls.ca):
            raise ConfigError("federation needs tls.cert, tls.key and tls.ca; `keyop keygen` makes them")
        Credentials(settings.tls, role)  # what is wrong with them is said before a writer is started
        _take_descriptors()
        number = layout.ROLE_HUB if role == "hub" else layout.ROLE_CLIENT
        attachment = await asyncio.to_thread(Attachment, settings, logger.parent, number)
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
        if link.is_namesake and peer_name not in self._namesakes:
            self._namesakes.add(peer_name)
            self.log.warning(
                "%s: the peer's certificate has this host's own name: no route tells who has a message, ids alone stop "
                "what would come back; give each host a certificate of its own",
                peer_name,
            )
        return link

    def inbound(self, link: Link, allowed: Iterable[str] | None) -> Inbound:
        """A receiving half."""
        channels = None if allowed is None else frozenset(allowed)
        return Inbound(self.attachment, self.acknowledgements, link, self.known, self.audit, allowed=channels)

    def outbound(self, channels: Iterable[str], position_id: str | None, raw_id: str, traffic: Traffic) -> Outbound:
        """A sending half."""
        return Outbound(self.attachment, channels, position_id, raw_id, self.audit, traffic)

    def _take_unclaimed(self) -> None:
        self.attachment.replies.unclaimed()

    # ---- connections

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

    def take_another_ca(self) -> None:
        """Whom the new one does not know must not stay because it was here before: everybody comes again."""
        self._ca_since_s = time.monotonic()
        self.close_all(CloseCode.GOING_AWAY, ANOTHER_CA)

    def knew_by_another_ca(self, since_s: float) -> bool:
        """Whether a connection that began then (by `time.monotonic`) may have been judged by the CA before."""
        return since_s <= self._ca_since_s

    def close_all(self, code: int, reason: str) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.close(code, reason)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if not self._loss.done() and (error := self._find_loss()) is not None:
                    self._loss.set_result(error)
                self.audit.flush()
                self.standings.write()
            except (KeyopError, OSError):
                pass  # what can be shown is shown a little later
            except Exception:  # without this task nobody would see how things stand, or that they are at an end
                self.log.exception("a look around")

    # ---- the end

    async def lost(self) -> KeyopError:
        """Wait until nothing can be done here any more, which only another process can mend; why."""
        return await asyncio.shield(self._loss)

    def _find_loss(self) -> KeyopError | None:
        try:
            self.attachment.refuse_poisoned()
            if not self._lease.is_in_place:
                path = self.attachment.directory.path
                return DataDirectoryError(f"{path}: was removed or moved away under this process")
        except KeyopError as error:
            return error
        except OSError:
            pass  # a failing disk says nothing of where the directory is
        return None

    def deadline(self) -> float:
        """By when to give up positions: while it leaves, soon, in case the writer stands still."""
        return min(time.monotonic() + CLOSE_TIMEOUT_S, self._leave_by_s)

    async def drain(self) -> None:
        """Finish the batches under way, and close every connection with 1001."""
        self.is_leaving = True
        self._leave_by_s = time.monotonic() + self.limits.drain_timeout_s + LEAVE_S
        if self._loss.done():  # nothing that is under way will arrive
            self._leave_by_s = time.monotonic()
            self.close_all(CloseCode.GOING_AWAY, "going away")
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(self.limits.drain_timeout_s + LEAVE_S):
                while self._connections:
                    self._one_ended.clear()
                    await self._one_ended.wait()
        except TimeoutError:
            self.log.warning("%d connections did not end in time", len(self._connections))

    async def close(self) -> None:
        """Leave the data directory."""
        self._looking.cancel()
        self.news.close()
        self.audit.flush()
        await asyncio.to_thread(self.known.close)
        await asyncio.to_thread(self.attachment.close, max(LEAVE_S, self.deadline() - time.monotonic()))
        self.acknowledgements.close()
        self._lease.release()


def _only_one(attachment: Attachment, role: Role) -> lease.Lease:
    path = attachment.directory.run / f"{role}.lock"
    held = lease.acquire(path)
    if held is None:
        raise FederationBusy(f"{attachment.directory.path}: a keyop {role} runs on this directory already")
    held.note(f"pid {os.getpid()}\n")
    return held


def _take_descriptors() -> None:
    """One for each connection, and one for each channel of each peer."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS: what it calls the limit cannot be had
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
