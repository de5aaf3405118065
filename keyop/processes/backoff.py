"""How long to wait before a role that has died is started again."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 30.0
HEALTHY_S = 10.0
"""Who has worked for so long is well again: the next pause is the shortest."""


class Backoff:
    """Pauses in seconds: 0.1, 0.2, 0.4 and so on, up to 30."""

    def __init__(self) -> None:
        self._failures = 0

    def next_s(self, worked_s: float) -> float:
        """The pause after a process that did its work for so long, 0 if it never came to it."""
        if worked_s >= HEALTHY_S:
            self._failures = 0
        doublings = min(self._failures, 16)
        self._failures += 1
        return min(LONGEST_S, FIRST_S * 2.0**doublings)

    def forget(self) -> None:
        """Somebody wants it started now."""
        self._failures = 0
