"""Rows in columns, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from keyop.configuration.durations import format_duration

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def table(headings: Sequence[str], rows: Sequence[Sequence[str | int | None]], left: int = 1) -> str:
    """Lines with the first ``left`` columns flush left and the others flush right; None is a dash."""
    cells = [[str(heading) for heading in headings]]
    cells += [["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def counted(number: int, thing: str) -> str:
    """``1 channel``, ``2,000 channels``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def size(length: int) -> str:
    """``1,023``, ``1.5 KiB``, ``100.0 MiB``."""
    if length < 1024:
        return f"{length} B"
    amount = float(length)
    for unit in _UNITS:
        amount /= 1024
        if amount < 1024 or unit == _UNITS[-1]:
            break
    return f"{amount:,.1f} {unit}"


def age(seconds: float | None) -> str | None:
    """``1h30m``, ``12s``, ``0.2s``."""
    if seconds is None:
        return None
    return format_duration(round(seconds) if seconds >= 10 else round(seconds, 1))


def short_time(ts: str) -> str:
    """An envelope's time to the millisecond. It keeps its Z: `--from` reads a time without one as local."""
    return ts[:23].rstrip("Z") + "Z" if ts.endswith("Z") else ts
