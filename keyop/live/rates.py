"""Counters of two looks, as rates."""

from __future__ import annotations

from collections.abc import Hashable


class Rates:
    """How fast counters grow. Those that were not asked for in a look are forgotten with it."""

    def __init__(self) -> None:
        self._before: dict[Hashable, float] = {}
        self._now: dict[Hashable, float] = {}
        self._elapsed_s = 0.0

    def begin(self, elapsed_s: float) -> None:
        """A new look, this long after the one before; 0 for the first."""
        self._before, self._now = self._now, {}
        self._elapsed_s = elapsed_s

    def grown(self, key: Hashable, total: float) -> float:
        """By how much the counter has grown. One that has been set back began anew: all of it is new."""
        before = self._before.get(key)
        self._now[key] = total
        if before is None:
            return 0
        return total - before if total >= before else total

    def per_s(self, key: Hashable, total: float) -> float:
        """The same, per second."""
        grown = self.grown(key, total)
        return round(grown / self._elapsed_s, 2) if self._elapsed_s > 0 else 0.0
