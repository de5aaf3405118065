"""How things stand with each peer, in both directions, kept in the port for whoever asks: `keyop status`.

``behind`` is what the peer has not acknowledged of its channels, also while it is away. How much of ours a peer has not
been sent yet is known there only: it stands in the status of the other host.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from keyop.attachment.attachment import Attachment
from keyop.federation.traffic import Traffic
from keyop.ipc.layout import PEER_AWAY, PEER_CONNECTED, PEER_REFUSED, ROUND_TRIPS
from keyop.ipc.slot import Slot

# What is behind a peer that is away changes slowly, and there may be many of them.
_AWAY_EVERY = 10


class Standing:
    """One peer, over all of its connections; of an ephemeral one, one connection."""

    def __init__(
        self, name: str, address: str, behind_bytes: Callable[[], int], traffic: Traffic | None = None
    ) -> None:
        self.name = name
        """The CN of its certificate, "" while that is not known."""
        self.address = address
        """Where it is, or was last."""
        self.traffic = traffic or Traffic()
        """What has passed."""
        self.behind_bytes = behind_bytes
        """How much it has not acknowledged."""
        self.waiting_bytes: Callable[[], int] = _nothing
        """How much of what it sent is not committed yet."""
        self._state = PEER_AWAY
        # When it came into this state; None: it is away, and has not been seen yet.
        self._since_s: float | None = None

    def is_connected(self, name: str, address: str, waiting_bytes: Callable[[], int]) -> None:
        """It has come."""
        self.name, self.address = name, address
        self.waiting_bytes = waiting_bytes
        self._enter(PEER_CONNECTED)

    def is_away(self, *, refused: bool = False) -> None:
        """It has gone; ``refused``: or it is there, and does not let this host in."""
        self.waiting_bytes = _nothing
        self._enter(PEER_REFUSED if refused else PEER_AWAY)

    def _enter(self, state: int) -> None:
        if state != self._state:
            self._state = state
            self._since_s = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        return self._state == PEER_CONNECTED

    def values(self) -> dict[str, int | None]:
        """By the names of `layout.SLOT_PEER_VALUES`."""
        traffic = self.traffic
        return {
            "state": self._state,
            "since_ms": _age_ms(self._since_s),
            "round_trip_us": int(traffic.round_trip_s * 1e6) or None,
            "behind_bytes": self.behind_bytes(),
            "sent": traffic.sent,
            "sent_per_min": round(traffic.sent_rate.per_s * 60),
            "sent_ago_ms": _age_ms(traffic.sent_s),
            "waiting_bytes": self.waiting_bytes(),
            "received": traffic.received,
            "received_per_min": round(traffic.received_rate.per_s * 60),
            "received_ago_ms": _age_ms(traffic.received_s),
        }


def _nothing() -> int:
    return 0


def _age_ms(since_s: float | None) -> int | None:
    return None if since_s is None else int((time.monotonic() - since_s) * 1000)


class Standings:
    """All peers of one process, each with its slot in the port."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._slots: dict[Standing, tuple[Slot, str, str]] = {}
        self._turn = 0

    def add(self, standing: Standing) -> None:
        """Show a peer from here on."""
        self._slots[standing] = self._place(standing)

    def _place(self, standing: Standing) -> tuple[Slot, str, str]:
        slot = self._attachment.take_peer_slot(standing.name.encode()[:255], standing.address.encode()[:255])
        _store(slot, standing)
        return slot, standing.name, standing.address

    def remove(self, standing: Standing) -> None:
        """Show it no more."""
        placed = self._slots.pop(standing, None)
        if placed is not None:
            self._attachment.slot(placed[0].index).vacate()

    def write(self) -> None:
        """Bring what is shown up to date: twice a second."""
        self._turn += 1
        for standing, (slot, name, address) in list(self._slots.items()):
            if not standing.connected and self._turn % _AWAY_EVERY:
                continue
            # Shared memory may have been made anew since.
            here = self._attachment.slot(slot.index)
            if (name, address) != (standing.name, standing.address):
                here.vacate()
                self._slots[standing] = self._place(standing)
            else:
                _store(here, standing)


def _store(slot: Slot, standing: Standing) -> None:
    slot.store_peer(standing.values())
    slot.store_times(ROUND_TRIPS, standing.traffic.round_trips.read())
