"""Whether keyop recovers what the model recovers, from the same crash states."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from keyop.storage.recovery import Recovered, recover
from torturing.models.commit_path.modes import Mode
from torturing.models.commit_path.recovery import Recovery
from torturing.models.commit_path.rendering import CELL_BYTES, differences, render
from torturing.models.commit_path.rules import Rules
from torturing.models.commit_path.world import World


class Conformance:
    """One run of the model in which every recovery that comes to its end is compared with one of keyop."""

    def __init__(self, seed: int, mode: Mode, place: Path) -> None:
        self.compared = 0
        self.differences: list[str] = []
        self._place = place
        self.ledger = World(seed, mode, Rules(), recovery=self._recovery).run()

    def _recovery(self, world: World) -> Recovery:
        return _ComparedRecovery(world, self, self._place)


class _ComparedRecovery(Recovery):
    def __init__(self, world: World, conformance: Conformance, place: Path) -> None:
        self._conformance = conformance
        self._real = render(world.disk, Path(tempfile.mkdtemp(dir=place)))
        super().__init__(world)

    def run(self) -> None:
        try:
            super().run()
            self._compare(recover(self._real))
        finally:
            shutil.rmtree(self._real.path)

    def _compare(self, found: Recovered) -> None:
        conformance = self._conformance
        conformance.compared += 1
        conformance.differences += differences(self._world.disk, self._real)
        for what, (ours, theirs) in {
            "live": (bool(self._live), not found.clean),
            "cursors": (self._cursors(), _cursors_of(found)),
            "rings": (
                {ring: consumed.position for ring, consumed in self.rings.items()},
                {ring: position for ring, (position, _answers) in found.rings.items()},
            ),
            "ends": (self.ends, _in_cells(found.ends)),
            "conflicts": (self.conflicts, _in_cells(found.conflicts)),
            "spill files": (self.spills, {name.decode() for name in found.spills}),
        }.items():
            if ours != theirs:
                conformance.differences.append(f"{what}: the model has {ours}, keyop {theirs}")

    def _cursors(self) -> dict[tuple[str, str], tuple[int, int, int, int]]:
        return {
            key: (state.moves, state.offset, state.attempts_offset, state.attempts)
            for key, state in self.cursors.items()
        }


def _cursors_of(found: Recovered) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    return {
        (channel.decode(), id.decode()): (
            cursor.moves,
            cursor.offset // CELL_BYTES,
            cursor.attempts_offset // CELL_BYTES,
            cursor.attempts,
        )
        for (channel, id), (cursor,) in found.cursors.items()
    }


def _in_cells(offsets: dict[bytes, int]) -> dict[str, int]:
    return {channel.decode(): offset // CELL_BYTES for channel, offset in offsets.items()}
