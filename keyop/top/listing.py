"""One table on the screen: sorted, filtered, with a selected row.

Who has moved to a row keeps it while rows come, go and change places. In the first row one stays at the top.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from keyop.live.figures import sparkline
from keyop.live.snapshot import Snapshot
from keyop.top.cells import clean, fit
from keyop.top.table import Column, Style, Table

Line = list[tuple[str, Style]]

_GAP = " "


class Listing:
    """What somebody has chosen to see of a table."""

    def __init__(self, table: Table, *, ascii_only: bool = False) -> None:
        self.table = table
        self.filter = ""
        """Rows whose texts hold this, in whatever case."""
        self.sorted_by = table.columns[0]
        self.reversed = False
        self._ascii_only = ascii_only
        self._selected: Hashable = None
        self._place = 0
        self._top = 0
        self._height = 1
        self._rows: list[Any] = []

    # ---- what is shown

    def take(self, snapshot: Snapshot) -> None:
        """The rows of another look."""
        table, wanted = self.table, self.filter.casefold()
        rows = [row for row in table.rows(snapshot) if not wanted or wanted in table.name(row).casefold()]
        # Rows of the same rank stand in the order of the first column, whichever way the others are sorted.
        rows.sort(key=table.columns[0].order)
        rows.sort(key=self.sorted_by.order, reverse=self.sorted_by.descending != self.reversed)
        self._rows = rows
        places = {table.key(row): place for place, row in enumerate(rows)} if self._selected is not None else {}
        self._select(places.get(self._selected, self._place))

    @property
    def selected(self) -> Any | None:
        """The selected row; None where there is none."""
        return self._rows[self._place] if self._rows else None

    # ---- keys

    def move(self, rows: int) -> None:
        """Select another row, so many further down."""
        self._select(self._place + rows)

    def page(self, pages: int) -> None:
        """The same by what the screen holds."""
        self.move(pages * max(1, self._height - 1))

    def first(self) -> None:
        """Select the first row."""
        self._select(0)

    def last(self) -> None:
        """Select the last row."""
        self._select(len(self._rows) - 1)

    def sort_by_next(self, step: int = 1) -> None:
        """Sort by the next column, or by the one before."""
        columns = self.table.columns
        self.sorted_by = columns[(columns.index(self.sorted_by) + step) % len(columns)]
        self.reversed = False
        self.first()

    def turn_round(self) -> None:
        """Sort the other way round."""
        self.reversed = not self.reversed
        self.first()

    def _select(self, place: int) -> None:
        self._place = max(0, min(place, len(self._rows) - 1))
        self._selected = self.table.key(self._rows[self._place]) if self._place else None

    # ---- drawing

    def lines(self, cells: int, height: int, now_unix_s: float) -> list[Line]:
        """The headings and as many rows as there is room for."""
        widths = self._widths(cells)
        self._height = max(1, height - 1)
        self._top = max(0, min(self._top, self._place, len(self._rows) - self._height))
        self._top = max(self._top, self._place - self._height + 1)
        lines = [[(self._headings(widths, cells), Style.BAR)]]
        for place, row in enumerate(self._rows[self._top : self._top + self._height], self._top):
            line = self._line(row, widths, now_unix_s)
            if place == self._place:
                line = [(fit("".join(text for text, _ in line), cells), Style.BAR)]
            lines.append(line)
        if not self._rows:
            nothing = f"Nothing matches {self.filter!r}; Esc forgets the filter." if self.filter else self.table.nothing
            lines.append([(fit(nothing, cells), Style.DIM)])
        return lines

    def _widths(self, cells: int) -> list[int]:
        columns = self.table.columns
        spare = cells - sum(column.cells for column in columns) - len(_GAP) * (len(columns) - 1)
        # Beyond what a name usually takes, half of a wide screen goes to the history.
        history = sum(column.is_history for column in columns) and max(0, (spare - 40) // 2)
        return [
            column.cells + history if column.is_history else column.cells or max(1, spare - history)
            for column in columns
        ]

    def _headings(self, widths: list[int], cells: int) -> str:
        texts = []
        for column, width in zip(self.table.columns, widths, strict=True):
            title = column.title
            if column is self.sorted_by:
                title += "^" if self.reversed == column.descending else "v"
            texts.append(fit(title, width, right=column.right))
        return fit(_GAP.join(texts), cells)

    def _line(self, row: Any, widths: list[int], now_unix_s: float) -> Line:
        line: Line = []
        for column, width in zip(self.table.columns, widths, strict=True):
            if line:
                line.append((_GAP, Style.PLAIN))
            line.append(
                (self._cell(column, row, width, now_unix_s), column.style(row) if column.style else Style.PLAIN)
            )
        return line

    def _cell(self, column: Column, row: Any, width: int, now_unix_s: float) -> str:
        if column.is_history:
            return fit(sparkline(row.history, width, ascii_only=self._ascii_only), width)
        return fit(clean(column.text(row, now_unix_s)), width, right=column.right)
