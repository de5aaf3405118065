"""The tables as plain text, whole: ``keyop top --once``."""

from __future__ import annotations

from keyop.live.snapshot import Snapshot
from keyop.top.cells import clean, fit, width
from keyop.top.table import Table
from keyop.top.tables import TABLES


def plain(snapshot: Snapshot) -> str:
    """The writer's state, then each table with its headings."""
    writer = snapshot.writer
    said = ", ".join(filter(None, (writer.state, writer.mode, writer.stalled)))
    pid = f", pid {writer.pid}" if writer.pid is not None else ""
    parts = [f"{clean(snapshot.data_dir)}: writer {said}{pid}"]
    if snapshot.trouble is not None:
        parts.append(clean(snapshot.trouble))
    return "\n\n".join([*parts, *(_table(table, snapshot) for table in TABLES)])


def _table(table: Table, snapshot: Snapshot) -> str:
    columns = [column for column in table.columns if not column.is_history]
    cells = [[column.title for column in columns]]
    cells += [[clean(column.text(row, snapshot.taken_unix_s)) for column in columns] for row in table.rows(snapshot)]
    if len(cells) == 1:
        return table.nothing
    widths = [max(width(row[place]) for row in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join(
            fit(text, cells, right=column.right) for text, cells, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in cells
    )
