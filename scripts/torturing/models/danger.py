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
    "checkpoint goes on",
    "checkpoint goes on",
    "flush goes on",
    "retention goes on",
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
_AIMED = 0.4
_POWER = 0.4


class Danger:
    """That of one life."""

    __slots__ = ("_aimed_at", "_rate")

    def __init__(self, chance: Random, *, recovering: bool) -> None:
        self._rate = chance.choice(_RECOVERY_RATES if recovering else _RATES)
        self._aimed_at = ""
        if chance.random() < 0.5:
            self._rate = 0.0
            self._aimed_at = chance.choice(RECOVERY_STEPS if recovering else COMMIT_STEPS)

    def death(self, step: str, chance: Random) -> str | None:
        """``kill``, ``power`` or nothing."""
        rate = _AIMED if step == self._aimed_at else self._rate
        if not rate or chance.random() >= rate:
            return None
        return "power" if chance.random() < _POWER else "kill"
