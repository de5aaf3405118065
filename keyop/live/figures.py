"""Numbers in as few characters as a table has room for."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.:-=+*#"
_LETTERS = ("k", "M", "G", "T", "P")
_BYTE_LETTERS = ("K", "M", "G", "T", "P")


def rate(per_s: float | None) -> str:
    """``0.25``, ``7.3``, ``999``, ``1.2k``, ``45M``; a dash for what nobody counts, nothing for nothing."""
    if per_s is None:
        return "-"
    if not per_s:
        return ""
    if per_s < 10:
        return f"{per_s:.2f}" if per_s < 1 else f"{per_s:.1f}"
    return _scaled(per_s, 1000, _LETTERS)


def count(number: int | None) -> str:
    """``0``, ``9,999``, ``12k``; a dash for None."""
    if number is None:
        return "-"
    return f"{number:,}" if number < 10_000 else _scaled(number, 1000, _LETTERS)


def size(length: float) -> str:
    """``0``, ``512``, ``1.5K``, ``100M``: units of 1,024 bytes."""
    return _scaled(length, 1024, _BYTE_LETTERS)


def age(seconds: float | None) -> str:
    """``now``, ``12s``, ``5m``, ``3h``, ``12d``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "now"
    for unit_s, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)}{letter}"
    return f"{int(seconds)}s"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """The last `width` values as blocks, the greatest of them as the full one; a blank is 0."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0)
    if not top:
        return ""
    marks = (" " if value <= 0 else blocks[min(7, math.ceil(value / top * 8) - 1)] for value in shown)
    return "".join(marks).rjust(width)


def _scaled(amount: float, step: int, letters: Sequence[str]) -> str:
    if round(amount) < step:
        return f"{amount:.0f}"
    power = 0
    # What would be rounded to 1000k is 1.0M.
    while round(amount) >= step and power < len(letters):
        amount /= step
        power += 1
    letter = letters[power - 1]
    return f"{amount:.1f}{letter}" if amount < 9.95 else f"{amount:.0f}{letter}"
