"""Where the power is cut: at every kind of interesting moment, and anywhere."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torturing.powercut.image import Recording, Survival

_CHANCES = (0.0, 0.3, 0.7, 0.95, 1.0)
_NOTHING_TO_LOSE = 0.1
_RULES = ("sectors", "sectors", "sectors", "sectors", "writes", "all but one", "last")


class Step(NamedTuple):
    """The writer came to one of its named steps when the log was so long."""

    name: str
    mark: int


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut: the entries of the log before ``point`` had come."""

    point: int
    survival: Survival
    why: str
    """The step that it is near to, ``flush``, or ``anywhere``."""

    def __str__(self) -> str:
        rule = self.survival
        return f"{self.point} ({self.why}; {rule.rule} {rule.chance}, dice {rule.seed})"


def read_steps(path: Path) -> list[Step]:
    """What the writer's processes noted."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Step(name, int(mark)) for name, mark in (line.split() for line in lines)]


def choose(
    recording: Recording, steps: list[Step], begin: int, count: int, dice: random.Random, end: int | None = None
) -> list[Cut]:
    """So many cuts from ``begin`` on, up to ``end``, in the order of the log.

    Two of five near a step of the writer, each kind of step as often as any other; two of five around flushes; the
    rest anywhere. Directly behind a flush there is nothing to lose: there only few.
    """
    by_name: dict[str, list[int]] = defaultdict(list)
    for step in steps:
        by_name[step.name].append(step.mark)
    # The longer the way to a flush, the more can be lost before it.
    long_ways = sorted(recording.flushes, key=recording.unflushed)[-max(1, len(recording.flushes) // 10) :]
    cuts: list[Cut] = []
    while len(cuts) < count:
        kind = dice.randrange(5)
        if kind < 2 and by_name:
            why = dice.choice(sorted(by_name))
            point = dice.choice(by_name[why]) + dice.randrange(-2, 4)
        elif kind < 4 and recording.flushes:
            why = "flush"
            flush = dice.choice(long_ways if dice.random() < 0.5 else recording.flushes)
            point = dice.choice((flush, flush, flush + 1, flush - dice.randrange(recording.unflushed(flush) + 1)))
        else:
            why = "anywhere"
            point = dice.randrange(len(recording) + 1)
        point = min(max(point, begin), len(recording) if end is None else end)
        if recording.unflushed(point) or dice.random() < _NOTHING_TO_LOSE:
            cuts.append(Cut(point, _survival(dice), why))
    return sorted(cuts, key=lambda cut: cut.point)


def _survival(dice: random.Random) -> Survival:
    rule = dice.choice(_RULES)
    chance = dice.choice(_CHANCES) if rule == "sectors" else dice.choice((0.3, 0.7))
    return Survival(rule, chance, dice.randrange(1 << 32))
