"""Time limits, as callers give them, and what the clock says when they are over."""

from __future__ import annotations

import time


def deadline_in(timeout: float | None) -> float | None:
    """When so many seconds are over, by the monotonic clock; None: never.

    Raises ValueError for what is no number of seconds.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or timeout != timeout:
        raise ValueError(f"timeout is a number of seconds, or None for no limit, not {timeout!r}")
    return time.monotonic() + timeout
