"""Spill files: transactions that are handed over in a file of their own, which a ring record and a frame name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torturing.models.commit_path.disk import File
from torturing.models.commit_path.entries import Append
from torturing.models.commit_path.line import Cell, Line

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


def write_spill(world: World, name: str, lines: list[Line]) -> None:
    """The publisher's part: file and name are on the device before a ring speaks of them."""
    file = File()
    file.write(0, [cell for line in lines for cell in line.cells])
    world.disk.spill.put(name, file)
    if world.rules.spill_synced:
        file.sync()
        world.disk.spill.sync()


def is_whole(world: World, name: str, lines: list[Line]) -> bool:
    """Whether a spill file holds what its record says."""
    file = world.disk.spill.file(name)
    return file is not None and file.cells == [cell for line in lines for cell in line.cells]


def read_spilled(world: World, item: Append) -> Sequence[Cell] | None:
    """The cells of an entry: its own, or those that it names in a spill file; None if they are not whole there."""
    if item.spill is None:
        return item.cells
    file = world.disk.spill.file(item.spill.name)
    if file is None:
        return None
    cells = tuple(file.cells[item.spill.at : item.spill.at + len(item.cells)])
    return cells if cells == item.cells else None


class Spills:
    """The writer's part: a file stays until the journal file whose frame names it is free."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._named: set[str] = set()

    def name(self, names: list[str]) -> None:
        """A frame names these."""
        self._named.update(names)

    def remove(self, names: set[str]) -> None:
        """No live frame names these any more."""
        self._named -= names
        for name in sorted(names):
            self._world.disk.spill.remove(name)

    def bury(self, ring: int) -> None:
        """What a dead process wrote and no frame names."""
        for name in list(self._world.disk.spill.names):
            if str(name).startswith(f"{ring}-") and name not in self._named:
                self._world.disk.spill.remove(name)

    def sweep(self, rings: set[int]) -> None:
        """At a start: what belongs to no ring that exists."""
        spare = self._world.rules.spill_of_living_spared
        for name in list(self._world.disk.spill.names):
            if not spare or int(str(name).partition("-")[0]) not in rings:
                self._world.disk.spill.remove(name)
