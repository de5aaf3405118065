"""Positions of peers that do not come back are forgotten: they would hold back segments for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time

from keyop.errors import KeyopError
from keyop.federation import absent
from keyop.federation.host import CLOSE_TIMEOUT_S, Host
from keyop.federation.peers import PeerList
from keyop.storage.wall_clock import WallClock

_EVERY_S = 3_600.0
_LEAST_S = 60.0


class Sweep:
    """Looks now and then, and not at the start: a hub that was off itself for a week gives its peers time to come."""

    def __init__(self, host: Host, peers: PeerList) -> None:
        self._host = host
        self._peers = peers
        self.turn = asyncio.Lock()
        """Held while a position is opened or forgotten."""

    async def run(self) -> None:
        """Until cancelled."""
        ttl_s = self._host.settings.hub.fed_client_offset_ttl
        clock = WallClock()
        while ttl_s > 0:
            await asyncio.sleep(min(_EVERY_S, max(_LEAST_S, ttl_s / 2)))
            for outbound in self._peers.outbounds():
                # It may be there for weeks and get nothing: were this process killed, it would seem to be long gone.
                await asyncio.to_thread(outbound.touch)
            if not clock.trusted(time.time(), time.monotonic()):
                continue  # set right just now, all peers would seem to have left long ago
            try:
                await self.forget(time.time() - ttl_s)
            except (KeyopError, OSError) as error:
                self._host.log.warning("positions of peers that are gone were not removed: %s", error)

    async def forget(self, before_s: float) -> list[tuple[str, str]]:
        """Forget the positions of peers that left before a time (seconds since 1970) and are not there.

        (channel, id) of what was forgotten. Raises `OSError`.
        """
        host = self._host
        forgotten = []
        old = await asyncio.to_thread(absent.left_before, host.attachment, host.positions.prefix, before_s)
        for channel, id in old:
            async with self.turn:
                if id not in map(host.positions.id_of, self._peers.connected()) and await self._forget(channel, id):
                    forgotten.append((channel, id))
        return forgotten

    async def _forget(self, channel: str, id: str) -> bool:
        host = self._host
        try:
            deadline = time.monotonic() + CLOSE_TIMEOUT_S
            await asyncio.to_thread(absent.forget, host.attachment, channel, id, deadline)
        except KeyopError as error:
            host.log.warning("%s/%s: not removed: %s", channel, id, error)
            return False
        host.log.info("%s/%s: removed, the peer has been away for too long", channel, id)
        self._peers.forgotten(channel, id)
        if not await asyncio.to_thread(absent.is_used, host.attachment, id):
            with contextlib.suppress(OSError):
                host.positions.forget(id)
        return True
