"""Lines in units: a file of the model is a list of cells, and a line is a few of them.

A cell is what a power cut keeps or loses as a whole. It says which thing it belongs to, a line or a frame of the
journal, and its place in that. The last cell of a line carries its newline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Cell = tuple[object, int] | None
"""``None`` is zeros: allocated, and never written."""


class Line:
    """A message, whoever wrote it."""

    __slots__ = ("author", "cells", "channel", "foreign", "length", "name", "number", "of", "spilled")

    def __init__(
        self,
        author: str,
        number: int,
        channel: str,
        length: int,
        *,
        foreign: bool = False,
        of: Line | None = None,
        spilled: bool = False,
    ) -> None:
        self.author = author
        self.number = number
        self.channel = channel
        self.length = length
        self.foreign = foreign
        # What a handler made it from: an output, or a dead letter.
        self.of = of
        self.spilled = spilled
        self.name = f"{author}:{number}"
        self.cells: tuple[Cell, ...] = tuple((self, place) for place in range(length))

    def __repr__(self) -> str:
        return self.name


class Found:
    """What stands between two newlines: where, and the whole line at its end if there is one."""

    __slots__ = ("at", "begin", "behind", "line")

    def __init__(self, begin: int, at: int, behind: int, line: Line | None) -> None:
        self.begin = begin
        # Where that whole line begins: further on than `begin` if something spoilt stands before it.
        self.at = at
        self.behind = behind
        self.line = line

    @property
    def spoilt(self) -> bool:
        """Whether more than one whole line stands there, or less."""
        return self.line is None or self.at != self.begin

    def moved(self, by: int) -> Found:
        """The same, counted from elsewhere."""
        return Found(self.begin + by, self.at + by, self.behind + by, self.line)


def ends_line(cell: Cell) -> bool:
    """Whether a cell carries a newline."""
    return cell is not None and type(cell[0]) is Line and cell[1] == cell[0].length - 1


def behind_newline(cells: Sequence[Cell], position: int) -> int:
    """The greatest position up to this one that is 0 or directly behind a newline."""
    while position > 0 and not ends_line(cells[position - 1]):
        position -= 1
    return position


def line_end(cells: Sequence[Cell], begin: int) -> int | None:
    """The position behind the next newline, if there is one."""
    for at in range(begin, len(cells)):
        cell = cells[at]
        if cell is not None and type(cell[0]) is Line and cell[1] == cell[0].length - 1:
            return at + 1
    return None


def read_lines(cells: Sequence[Cell], begin: int = 0) -> Iterator[Found]:
    """What is ended by a newline, as a reader has it: of a spoilt line the whole envelope at its end counts."""
    at = begin
    while (end := line_end(cells, at)) is not None:
        line = cells[end - 1][0]  # type: ignore[index]
        assert type(line) is Line
        first = end - line.length
        whole = first >= at and tuple(cells[first:end]) == line.cells
        yield Found(at, first, end, line) if whole else Found(at, at, end, None)
        at = end
