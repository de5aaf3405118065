"""The client: keeps a connection to each of its hubs, for ever, and exchanges channels with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from keyop.configuration.settings import Settings
from keyop.errors import KeyopError
from keyop.federation import absent
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.hub_link import HubLink
from keyop.federation.positions import CLIENT_PREFIX
from keyop.federation.reload import Reload


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

    async def lost(self) -> KeyopError:
        """Wait until it can work no more; why."""
        return await self._host.lost()

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
