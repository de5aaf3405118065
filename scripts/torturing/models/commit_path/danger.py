"""Where a life is in danger: anywhere a little, or at one step a lot.

A window that is one step wide among fifty is met often enough only if some lives are aimed at it.
"""

from __future__ import annotations

from random import Random

COMMIT_STEPS = (
    "channel.opened",
    "segment.created",
    "segment.created",
    "half of a frame is written",
    "frame.written",
    "frame.written",
    "frame.synced",
    "half of a chunk is written",
    "segment.written",
    "applied",
    "answers are written",
    "settled",
    "swept",
    "offset.drafted",
    "journal.switched",
    "checkpoint.segments_synced",
    "checkpoint.synced",
    "free.zeroed",
    "free.synced",
    "flush.begun",
    "offsets.filed",
    "segment.removed",
)
RECOVERY_STEPS = (
    "recovery.journal_synced",
    "recovery.created",
    "recovery.created",
    "recovery.written",
    "recovery.written",
    "recovery.applied",
    "answers are handed over",
    "offset.drafted",
    "recovery.offsets_synced",
    "recovery.zeroed",
    "recovery.freed",
)
_RATES = (0.0, 0.004, 0.015, 0.05)
_RECOVERY_RATES = (0.0, 0.0, 0.03, 0.1)
_AIMED_RATES = (0.06, 0.2, 0.5)
_POWER = 0.4


Aim = tuple[str, str]
"""A step, and what happens at it: ``kill`` or ``power``."""


class Danger:
    """That of one life, of a writer or of a recovery. ``aims`` are steps that a rule is there for."""

    __slots__ = ("_aim", "_aimed_rate", "_rate")

    def __init__(self, chance: Random, *, recovering: bool, aims: tuple[Aim, ...] = ()) -> None:
        steps = RECOVERY_STEPS if recovering else COMMIT_STEPS
        self._rate = chance.choice(_RECOVERY_RATES if recovering else _RATES)
        self._aimed_rate = chance.choice(_AIMED_RATES)
        self._aim = ("", "")
        draw = chance.random()
        here = [aim for aim in aims if aim[0] in steps]
        if here and draw < 0.7:
            self._rate, self._aim = 0.0, chance.choice(here)
        elif draw < 0.5:
            self._rate, self._aim = 0.0, (chance.choice(steps), "power" if chance.random() < _POWER else "kill")

    def death(self, step: str, chance: Random) -> str | None:
        """``kill``, ``power`` or nothing."""
        aimed_at, death = self._aim
        if step == aimed_at:
            return death if chance.random() < self._aimed_rate else None
        if not self._rate or chance.random() >= self._rate:
            return None
        return "power" if chance.random() < _POWER else "kill"
