"""Whether the age of a file may be told by the wall clock: a Raspberry Pi boots in 1970, and is set right later."""

from __future__ import annotations

import time

CLOCK_IS_SET_S = 1_704_067_200.0
"""Before this, the beginning of 2024, a clock is not set, and a file says nothing of its age."""

_CLOCK_JUMP_S = 60.0
_TRUST_AFTER_JUMP_S = 600.0


class WallClock:
    """Whether the wall clock may decide about age: it is set, and has not jumped for ten minutes."""

    def __init__(self) -> None:
        self._difference_s = time.time() - time.monotonic()
        self._jumped_s = -_TRUST_AFTER_JUMP_S

    def trusted(self, now_s: float, monotonic_s: float) -> bool:
        """Called with both clocks, again and again."""
        difference_s = now_s - monotonic_s
        if abs(difference_s - self._difference_s) > _CLOCK_JUMP_S:
            self._jumped_s = monotonic_s
        self._difference_s = difference_s
        return now_s > CLOCK_IS_SET_S and monotonic_s - self._jumped_s >= _TRUST_AFTER_JUMP_S
