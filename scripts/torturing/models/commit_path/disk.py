"""A disk that remembers what was written and not synced, so that a power cut can take some of it.

What is assumed of it is little: of the cells written since a file's last sync any may be lost, whatever their order;
the file has any length that it had meanwhile; of a directory's changes any may be lost as well. A sync that fails may
drop what it should have written, and the next one says that all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from torturing.models.commit_path.line import Cell

# In place of a cell: the file was cut there.
_CUT: Cell = ("cut", 0)
# How much of what was not synced a power cut leaves: nothing, all, or a part.
_SHARES = (0.0, 0.3, 0.7, 0.95, 1.0)


class SyncFailedError(Exception):
    """The device did not take what it was given."""


class File:
    """What processes see of a file (``cells``), and what is on the device."""

    __slots__ = ("_device", "_flushed", "_lengths", "_pending", "cells")

    def __init__(self, cells: Sequence[Cell] = ()) -> None:
        """A file that is on the device already."""
        self.cells: list[Cell] = list(cells)
        self._device: list[Cell] = list(cells)
        self._pending: list[tuple[int, Cell]] = []
        self._flushed = 0
        self._lengths = (len(cells), len(cells))

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def written(self) -> int:
        """A number that grows with every change: a sync reaches what was written when it began."""
        return self._flushed + len(self._pending)

    @property
    def is_synced(self) -> bool:
        """Whether nothing waits for a sync."""
        return not self._pending

    def write(self, at: int, cells: Sequence[Cell]) -> None:
        """Write at a position; zeros fill what lies between it and the end."""
        _put(self.cells, at, cells)
        self._pending += [(at + place, cell) for place, cell in enumerate(cells)]
        self._note_length()

    def cut(self, length: int) -> None:
        """Make the file shorter."""
        del self.cells[length:]
        self._pending.append((length, _CUT))
        self._note_length()

    def sync(self, up_to: int | None = None) -> None:
        """Bring everything to the device, or what had been written when ``written`` was so much."""
        count = len(self._pending) if up_to is None else max(0, up_to - self._flushed)
        for at, cell in self._pending[:count]:
            _apply(self._device, at, cell)
        del self._pending[:count]
        self._flushed += count
        self._lengths = (len(self._device), len(self._device))
        self._note_length()

    def fail_sync(self, chance: Random, *, forget: bool) -> None:
        """Some cells reach the device; the others are clean now and will never be written.

        With ``forget`` the kernel has dropped the pages: who reads sees what the device has. Else the cells are still
        to be seen, until the machine goes down.
        """
        for at, cell in self._pending:
            if chance.random() < 0.5:
                _apply(self._device, at, cell)
        self._flushed += len(self._pending)
        self._pending.clear()
        if forget:
            self.cells = list(self._device)
        self._lengths = (len(self._device), len(self._device))
        self._note_length()

    def lose_power(self, chance: Random) -> None:
        """What is left of the file when the machine comes up again."""
        if self._pending:
            share = chance.choice(_SHARES)
            for at, cell in self._pending:
                if chance.random() < share:
                    _apply(self._device, at, cell)
            shortest, longest = self._lengths
            length = chance.choice((shortest, longest, chance.randint(shortest, longest)))
            del self._device[length:]
            self._device += [None] * (length - len(self._device))
        self.cells = list(self._device)
        self._flushed += len(self._pending)
        self._pending.clear()
        self._lengths = (len(self.cells), len(self.cells))

    def damage(self, at: int) -> None:
        """A cell turns into something else, in memory and on the device."""
        self.cells[at] = self._device[at] = ("damaged", 0)

    def _note_length(self) -> None:
        shortest, longest = self._lengths
        self._lengths = (min(shortest, len(self.cells)), max(longest, len(self.cells)))


def _apply(cells: list[Cell], at: int, cell: Cell) -> None:
    if cell is _CUT:
        del cells[at:]
        return
    if at >= len(cells):
        cells += [None] * (at + 1 - len(cells))
    cells[at] = cell


def _put(cells: list[Cell], at: int, new: Sequence[Cell]) -> None:
    if at > len(cells):
        cells += [None] * (at - len(cells))
    cells[at : at + len(new)] = new


class Directory:
    """Names of files or of other directories, and which of the changes are on the device."""

    __slots__ = ("_device", "_pending", "names")

    def __init__(self) -> None:
        self.names: dict[object, File | Directory] = {}
        self._device: dict[object, File | Directory] = {}
        self._pending: list[tuple[object, File | Directory | None]] = []

    def put(self, name: object, target: File | Directory) -> None:
        """Give a file a name, replacing what had it."""
        self.names[name] = target
        self._pending.append((name, target))

    def remove(self, name: object) -> None:
        """Take a name away."""
        if self.names.pop(name, None) is not None:
            self._pending.append((name, None))

    def file(self, name: object) -> File | None:
        """The file of this name."""
        found = self.names.get(name)
        return found if isinstance(found, File) else None

    def directory(self, name: object) -> Directory | None:
        """The directory of this name."""
        found = self.names.get(name)
        return found if isinstance(found, Directory) else None

    def sync(self) -> None:
        """The names to the device; not what the files hold."""
        self._device = dict(self.names)
        self._pending.clear()

    def lose_power(self, chance: Random) -> None:
        """Any of the changes since the last sync may be lost. A file that only had such a name is gone with it."""
        if self._pending:
            share = chance.choice(_SHARES)
            for name, target in self._pending:
                if chance.random() < share:
                    if target is None:
                        self._device.pop(name, None)
                    else:
                        self._device[name] = target
            self._pending.clear()
        self.names = dict(self._device)
        for target in self.names.values():
            target.lose_power(chance)

    def files(self) -> Iterator[File]:
        """Every file in it and below."""
        for target in self.names.values():
            if isinstance(target, File):
                yield target
            else:
                yield from target.files()
