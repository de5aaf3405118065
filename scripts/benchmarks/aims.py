"""What we want to reach. Aims are marked in the report and never asserted: a noisy machine is not a failed test."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.results import Results


@dataclass(frozen=True, slots=True)
class Aim:
    """A limit on one of keyop's figures: on its value, or on its ratio to another figure of the same repetition."""

    key: str
    limit: float
    at_least: bool = False
    beside: tuple[str, str] | None = None
    """(key, contender) of the figure that ours is divided by."""
    words: str = ""
    """What that other figure is called."""
    as_rate: bool = False
    """The other figure is µs a message, and its rate is meant."""
    above: float = 0.0
    """Not divided: so many times the other figure are taken off ours, and the rest is what has the limit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim beside what was measured."""

    aim: Aim
    values: list[float]

    @property
    def met(self) -> bool:
        """By the median."""
        value = median(self.values)
        return value >= self.aim.limit if self.aim.at_least else value <= self.aim.limit

    def __str__(self) -> str:
        aim = self.aim
        sign = "≥" if aim.at_least else "≤"
        mark = "✓" if self.met else "✗"
        if aim.beside is None:
            return f"{mark} aim {sign} {aim.limit:,g}"
        if aim.above:
            spread = f"{median(self.values):,.0f} ({min(self.values):,.0f}–{max(self.values):,.0f})"
            return f"{mark} {spread} above {aim.above:g} × {aim.words}, aim {sign} {aim.limit:g}"
        spread = f"{median(self.values):.2f} ({min(self.values):.2f}–{max(self.values):.2f})"
        return f"{mark} {spread} × {aim.words}, aim {sign} {aim.limit:g}"


_FLOOR_1 = ("publish.strict.1", "floor")
_SYNC = ("federation.disk.p50", "floor")

AIMS = (
    Aim("publish.strict.1", 1.2, beside=_FLOOR_1, words="floor"),
    Aim("publish.periodic.burst", 6.0),
    Aim("publish.strict.batch", 100_000, at_least=True),
    Aim("publish.strict.16x1", 5.0, at_least=True, beside=_FLOOR_1, words="the floor one by one", as_rate=True),
    Aim("publish.strict.16x1", 1.7, at_least=True, beside=("publish.strict.16x1", "redis"), words="Redis"),
    Aim("publish.strict.16x64", 1 / 1.3, at_least=True, beside=("publish.strict.16x1", "keyop"), words="one channel"),
    Aim("latency.strict.idle.p50", 300),
    Aim("latency.strict.idle.p99", 500),
    Aim("latency.periodic.idle.p50", 60),
    Aim("latency.periodic.idle.p99", 200),
    Aim("drain.noop", 400_000, at_least=True),
    Aim("drain.exactly_once", 100_000, at_least=True),
    Aim("drain.kill.lost", 0),
    # The message that was in the handler when the process was killed comes again: that is at-least-once.
    Aim("drain.kill.repeated", 3),
    Aim("scale.strict.channels.100", 1.15, beside=("scale.strict.channels.1", "keyop"), words="1 channel"),
    Aim("scale.strict.channels.5000", 1.15, beside=("scale.strict.channels.1", "keyop"), words="1 channel"),
    Aim("scale.periodic.channels.100", 1.15, beside=("scale.periodic.channels.1", "keyop"), words="1 channel"),
    Aim("scale.periodic.channels.5000", 1.15, beside=("scale.periodic.channels.1", "keyop"), words="1 channel"),
    Aim("device.crowd.syncs", 0.12),
    Aim("device.crowd.bytes", 1300),
    Aim("device.busy1.bytes", 0.7, beside=("device.busy1.bytes", "floor"), words="floor"),
    Aim("device.busy10.bytes", 0.3, beside=("device.busy10.bytes", "floor"), words="floor"),
    Aim("device.quiet.bytes", 0.4, beside=("device.quiet.bytes", "floor"), words="synced files"),
    Aim("footprint.writer", 20),
    Aim("footprint.idle.cpu", 0.2),
    Aim("footprint.import", 80),
    # The package imports its parts when they are first used: what a program waits for is this.
    Aim("footprint.import.messenger", 80),
    Aim("footprint.first", 300),
    Aim("federation.strict.up.p50", 400, beside=_SYNC, words="fdatasync", above=3),
    Aim("federation.periodic.up.p50", 400, beside=_SYNC, words="fdatasync", above=1),
    Aim("federation.backlog.up", 60_000, at_least=True),
    Aim("federation.backlog.down", 60_000, at_least=True),
    Aim("federation.live.up", 60_000, at_least=True),
    Aim("federation.live.down", 60_000, at_least=True),
    Aim("federation.crowd.rss", 60),
    Aim("federation.crowd.cpu", 1),
    Aim("operate.up.ready", 2_000),
    Aim("operate.up.rss.supervisor", 45),
    Aim("operate.up.idle.cpu", 1),
    Aim("operate.mending.worker.worst", 1_000),
    Aim("operate.sharing.2", 1.8, at_least=True, beside=("operate.sharing.1", "keyop"), words="one process"),
    Aim("operate.top.cpu", 3),
    Aim("operate.scrape.channels", 100),
)


def verdicts(results: Results, key: str) -> list[Verdict]:
    """Every aim for a figure of keyop that could be judged."""
    return [Verdict(aim, values) for aim in AIMS if aim.key == key and (values := _values(results, aim))]


def _values(results: Results, aim: Aim) -> list[float]:
    ours = results.samples.get((aim.key, "keyop"), {})
    if aim.beside is None:
        return list(ours.values())
    others = results.samples.get(aim.beside, {})
    pairs = [(value, others[repeat]) for repeat, value in ours.items() if others.get(repeat)]
    if aim.above:
        return [value - aim.above * other for value, other in pairs]
    return [value / (1e6 / other if aim.as_rate else other) for value, other in pairs]
