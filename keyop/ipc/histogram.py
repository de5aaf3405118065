"""How long things take, counted by size in shared memory: each bucket reaches twice as far as the one before it.

The owner keeps the counts and stores those that change. A count that has no room for more begins the whole histogram
anew, which to whoever takes differences looks like a restart of the process.
"""

from __future__ import annotations

from typing import NamedTuple

from keyop.ipc.layout import CHECK, HISTOGRAM_COUNTS, HISTOGRAM_SHIFT, HISTOGRAM_WORDS, MASK
from keyop.ipc.word import load64, store64

BOUNDS_S = tuple((1 << HISTOGRAM_SHIFT + number) / 1e9 for number in range(HISTOGRAM_COUNTS - 1))
"""The upper bounds of all buckets but the last, which has none: 8 microseconds to 18 minutes."""

_LAST = HISTOGRAM_COUNTS - 1
_LOOKS = 3


def bucket_of(time_ns: int) -> int:
    """The bucket that counts this time. What is negative, by two clocks that differ, took no time."""
    return min((time_ns >> HISTOGRAM_SHIFT).bit_length(), _LAST) if time_ns > 0 else 0


class Histogram:
    """The owner's side. Without ``words`` it counts for itself, until it is moved to where others look."""

    __slots__ = ("_at", "_counts", "_sum_ns", "_words")

    def __init__(self, words: memoryview | None = None, at: int = 0) -> None:
        self._counts = [0] * HISTOGRAM_COUNTS
        self._sum_ns = 0
        self._words = memoryview(bytearray(4 * HISTOGRAM_WORDS)).cast("I") if words is None else words
        self._at = at

    def note(self, time_ns: int, weight: int = 1) -> None:
        """Count a time, ``weight`` times. One thread at a time."""
        # Not by way of bucket_of and store64: this runs for each strict publish.
        if time_ns < 0:
            time_ns = 0
        bucket = (time_ns >> HISTOGRAM_SHIFT).bit_length()
        if bucket > _LAST:
            bucket = _LAST
        count = self._counts[bucket] + weight
        sum_ns = self._sum_ns + time_ns * weight
        if count > MASK or sum_ns >> 64:
            self._begin_anew()
            return
        self._counts[bucket] = count
        self._sum_ns = sum_ns
        words, at = self._words, self._at
        words[at + bucket] = count
        lo, hi = sum_ns & MASK, sum_ns >> 32
        words[at + HISTOGRAM_COUNTS] = lo
        words[at + HISTOGRAM_COUNTS + 1] = hi
        words[at + HISTOGRAM_COUNTS + 2] = lo ^ hi ^ CHECK

    def _begin_anew(self) -> None:
        self._counts = [0] * HISTOGRAM_COUNTS
        self._sum_ns = 0
        self.move(self._words, self._at)

    def move(self, words: memoryview, at: int) -> None:
        """Go on elsewhere, with all that was counted so far."""
        self._words, self._at = words, at
        write_histogram(words, at, self.read())

    def read(self) -> Distribution:
        """What was counted so far."""
        return Distribution(tuple(self._counts), self._sum_ns)


class Distribution(NamedTuple):
    """What a histogram holds at one moment."""

    counts: tuple[int, ...] = (0,) * HISTOGRAM_COUNTS
    sum_ns: int = 0

    @property
    def total(self) -> int:
        """How many times were counted."""
        return sum(self.counts)

    @property
    def sum_s(self) -> float:
        """All of them together, in seconds."""
        return self.sum_ns / 1e9

    @property
    def mean_s(self) -> float | None:
        """None where nothing was counted."""
        total = self.total
        return self.sum_s / total if total else None

    def quantile_s(self, part: float) -> float | None:
        """The time that this part of all (0 to 1) did not exceed, in seconds; None where nothing was counted.

        Exact to the bucket; within it times are taken as spread evenly on a logarithmic scale (in the first one,
        evenly). What took longer than the last bound counts as that bound.
        """
        rank = part * self.total
        below = 0
        for bucket, count in enumerate(self.counts):
            if count and below + count >= rank:
                return _between(bucket, max(0.0, rank - below) / count)
            below += count
        return None

    def plus(self, other: Distribution) -> Distribution:
        """Both together."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Distribution(counts, self.sum_ns + other.sum_ns)

    def since(self, earlier: Distribution) -> Distribution:
        """What has been counted since an earlier look; all of it if it began anew meanwhile."""
        counts = tuple(now - before for now, before in zip(self.counts, earlier.counts, strict=True))
        if min(counts) < 0 or self.sum_ns < earlier.sum_ns:
            return self
        return Distribution(counts, self.sum_ns - earlier.sum_ns)


def _between(bucket: int, part: float) -> float:
    if bucket == _LAST:
        return BOUNDS_S[-1]
    upper_s = BOUNDS_S[bucket]
    return float(upper_s * part if bucket == 0 else upper_s * 2.0 ** (part - 1))


def write_histogram(words: memoryview, at: int, times: Distribution) -> None:
    """The owner's side: all of it at once."""
    for bucket, count in enumerate(times.counts):
        words[at + bucket] = count
    store64(words, at + HISTOGRAM_COUNTS, times.sum_ns)


def read_histogram(words: memoryview, at: int) -> Distribution:
    """Anybody's side. What is being counted at this moment may be in the counts and not in the sum."""
    counts = tuple(words[at + bucket] for bucket in range(HISTOGRAM_COUNTS))
    sum_ns = None
    for _ in range(_LOOKS):
        sum_ns = load64(words, at + HISTOGRAM_COUNTS)
        if sum_ns is not None:
            break
    return Distribution(counts, sum_ns or 0)
