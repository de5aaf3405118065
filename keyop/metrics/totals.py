"""Counters that do not fall when a process leaves: what it had counted stays in the total.

Each process counts from zero, in memory that goes with it. Prometheus takes a counter that falls for one that began
anew, and would take what the other processes have counted for new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from keyop.ipc.histogram import Distribution

Count = int | Distribution


class Key(NamedTuple):
    """One series: a metric's name and its labels' values."""

    name: str
    labels: tuple[str, ...] = ()


class Totals:
    """Over all looks so far."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, Key], Count] = {}
        # Of what is gone.
        self._retired: dict[Key, Count] = {}

    def look(self, counted: Mapping[tuple[str, Key], Count], wanted: Callable[[Key], bool]) -> dict[Key, Count]:
        """The totals, given what each source has counted now. What is gone and not wanted any more is forgotten."""
        for (source, key), before in self._before.items():
            now = counted.get((source, key))
            if now is None or _is_less(now, before):
                self._retired[key] = _sum(self._retired.get(key), before)
        self._before = dict(counted)
        for key in [key for key in self._retired if not wanted(key)]:
            del self._retired[key]
        totals = dict(self._retired)
        for (_source, key), now in counted.items():
            totals[key] = _sum(totals.get(key), now)
        return totals


def _is_less(now: Count, before: Count) -> bool:
    if isinstance(now, Distribution) and isinstance(before, Distribution):
        return any(count < earlier for count, earlier in zip(now.counts, before.counts, strict=True))
    return isinstance(now, int) and isinstance(before, int) and now < before


def _sum(total: Count | None, more: Count) -> Count:
    if isinstance(total, Distribution) and isinstance(more, Distribution):
        return total.plus(more)
    return total + more if isinstance(total, int) and isinstance(more, int) else more
