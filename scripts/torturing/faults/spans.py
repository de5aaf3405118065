"""Ranges of bytes in a file."""

from __future__ import annotations

from collections.abc import Iterator


class Spans:
    """A set of positions, kept as ranges ``(start, end)`` that neither touch nor overlap."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def end(self) -> int:
        """Behind the last position; 0 if there is none."""
        return self._ranges[-1][1] if self._ranges else 0

    def add(self, start: int, end: int) -> None:
        """Put a range in."""
        if start >= end:
            return
        kept = []
        for low, high in self._ranges:
            if high < start or low > end:
                kept.append((low, high))
            else:
                start, end = min(start, low), max(end, high)
        kept.append((start, end))
        self._ranges = sorted(kept)

    def remove(self, start: int, end: int) -> None:
        """Take a range out."""
        kept = []
        for low, high in self._ranges:
            if low < start:
                kept.append((low, min(high, start)))
            if high > end:
                kept.append((max(low, end), high))
        self._ranges = kept

    def update(self, other: Spans) -> None:
        """Put every range of another set in."""
        for start, end in other:
            self.add(start, end)

    def cut(self, length: int) -> None:
        """Take out everything from a position on."""
        self._ranges = [(low, min(high, length)) for low, high in self._ranges if low < length]

    def clear(self) -> None:
        """Take everything out."""
        self._ranges.clear()
