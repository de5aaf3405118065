"""A line on a terminal that says how far a long work is; silent where nobody looks."""

from __future__ import annotations

import sys
import time

_EVERY_S = 0.1
_BAR = 24


class Progress:
    """Draws on standard error, if that is a terminal. Use it in a ``with`` block: the line is wiped at the end."""

    def __init__(self, what: str, *, wanted: bool = True) -> None:
        self._what = what
        self._shown = wanted and sys.stderr.isatty()
        self._drawn_s = 0.0
        self._drew = False

    def show(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` (0: not known how many)."""
        now = time.monotonic()
        if not self._shown or now - self._drawn_s < _EVERY_S:
            return
        self._drawn_s = now
        self._drew = True
        bar = ""
        if total:
            part = min(1.0, done / total)
            bar = f" [{'#' * int(part * _BAR):<{_BAR}}] {part:4.0%}"
        sys.stderr.write(f"\r\x1b[K{self._what}{bar}{'  ' + note if note else ''}")
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drew:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
