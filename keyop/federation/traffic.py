"""What passes between this host and one peer, counted for whoever asks how things stand."""

from __future__ import annotations

import math
import time

from keyop.ipc.histogram import Histogram

_HALF_LIFE_S = 10.0


class Rate:
    """Messages a second, of about the last quarter of a minute."""

    def __init__(self) -> None:
        self._per_s = 0.0
        self._since_s = time.monotonic()

    def add(self, count: int) -> None:
        """So many have passed just now."""
        self._per_s = self._now() + count * math.log(2) / _HALF_LIFE_S

    def _now(self) -> float:
        now_s = time.monotonic()
        faded = self._per_s * math.exp2((self._since_s - now_s) / _HALF_LIFE_S)
        self._since_s = now_s
        return faded

    @property
    def per_s(self) -> float:
        """The rate now."""
        self._per_s = self._now()
        return self._per_s


class Traffic:
    """Of one peer, over all of its connections since this process began."""

    def __init__(self) -> None:
        self.sent = 0
        """Messages that the peer has acknowledged."""
        self.received = 0
        """Messages of the peer that were committed here."""
        self.sent_rate = Rate()
        self.received_rate = Rate()
        self.sent_s: float | None = None
        """When the peer last acknowledged something, by `time.monotonic`; None if it never did."""
        self.received_s: float | None = None
        """When something of the peer was last committed."""
        self.round_trip_s = 0.0
        """Of the last batch, from its sending to its acknowledgement: network, and the peer's disk."""
        self.round_trips = Histogram()
        """Of all batches."""

    def went(self, count: int) -> None:
        """The peer has acknowledged messages."""
        self.sent += count
        self.sent_rate.add(count)
        self.sent_s = time.monotonic()

    def came(self, count: int) -> None:
        """Messages of the peer were committed."""
        self.received += count
        self.received_rate.add(count)
        self.received_s = time.monotonic()

    def round_trip(self, took_s: float) -> None:
        """A batch was acknowledged."""
        self.round_trip_s = took_s
        self.round_trips.note(int(took_s * 1e9))
