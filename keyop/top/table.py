"""What a table is: columns, how a cell reads, how rows are sorted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from keyop.live.snapshot import Snapshot


class Style(Enum):
    """What a piece of text looks like."""

    PLAIN = "plain"
    DIM = "dim"
    BOLD = "bold"
    BAR = "bar"
    """Reversed: headings and the selected row."""
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `cells` is 0 for the one that takes what is left; a sparkline may grow as well."""

    title: str
    cells: int
    text: Callable[[Any, float], str]
    """Of a row, at a Unix time."""
    order: Callable[[Any], Any]
    """What rows are sorted by."""
    right: bool = True
    descending: bool = True
    """Whether the greatest comes first, until the order is reversed."""
    style: Callable[[Any], Style] | None = None
    is_history: bool = False
    """Drawn as a sparkline of the row's history."""


@dataclass(frozen=True, slots=True)
class Table:
    """One view of a snapshot."""

    title: str
    rows: Callable[[Snapshot], Sequence[Any]]
    key: Callable[[Any], Hashable]
    """What makes a row the same one in the next look."""
    channel: Callable[[Any], str | None]
    """The channel whose messages it opens."""
    columns: tuple[Column, ...]
    nothing: str
    """What is said where there is no row."""

    def name(self, row: Any) -> str:
        """What the filter looks at."""
        return " ".join(column.text(row, 0) for column in self.columns if not column.right and not column.is_history)
