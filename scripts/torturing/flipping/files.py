"""Every bit of a small directory's files: turned over, a writer's start, everything read, and back again."""

from __future__ import annotations

import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from keyop.storage.directory import DataDirectory
from torturing.findings import Progress, Report, Violation, keep
from torturing.flipping.bits import Bit, every_bit, regions, some_bits
from torturing.flipping.directories import Made
from torturing.flipping.flaws import FLAWS
from torturing.flipping.judging import OUTCOMES, State, judge, start
from torturing.flipping.pristine import Pristine
from torturing.flipping.starting import watched_disk

_DEADLINE_S = 20
# Of the same kind in the same place; how many there are in all stands in the table.
_NAMED = 5


class HangError(Exception):
    """A step did not come to its end in time."""


def flip_files(
    name: str,
    directories: list[Made],
    place: Path,
    seed: int,
    count: int | None,
    kept: Path | None,
    flaw: str | None = None,
) -> Report:
    """Turn bits over in copies of directories, all of them or so many. Each directory has its table."""
    report = Report(name)
    chance = random.Random(seed)
    rooms = [_Room(made, place / made.name) for made in directories]
    sizes = [sum(region.end - region.start for region in regions(room.directory)) * 8 for room in rooms]
    report.notes += [f"{room.made.name}: {size:,} bits" for room, size in zip(rooms, sizes, strict=True)]
    bits = _bits(rooms, sizes, chance, count)
    progress = Progress(name, len(bits))
    with watched_disk() as changes, FLAWS[flaw].made() if flaw else nullcontext():
        for number, (room, bit) in enumerate(bits, 1):
            if room.sound is None:
                room.sound = start(room.directory, room.made.subscribers)
                room.pristine.restore(changes.paths)
                changes.clear()
            found = room.flip(bit)
            if found:
                _take(report, room, found, f"{seed}: {bit}", kept)
            room.pristine.restore(changes.paths | {bit.region.path})
            changes.clear()
            progress.at(number, f"({len(report.violations)} violations)")
    report.runs = len(bits)
    for room in rooms:
        left = room.pristine.differences()
        if left:
            report.add([Violation("rig", f"{room.made.name}: not as it was at the end: {left}")])
        report.notes += room.table()
    report.counts.update({what: sum(room.outcomes[what].total() for room in rooms) for what in OUTCOMES})
    report.counts = +report.counts
    if flaw:
        report.must_have_found(FLAWS[flaw].costs, flaw)
    return report.finish()


def _bits(rooms: list[_Room], sizes: list[int], chance: random.Random, count: int | None) -> list[tuple[_Room, Bit]]:
    """All, or so many of them; those of one directory follow each other."""
    if count is None:
        return [(room, bit) for room in rooms for bit in every_bit(regions(room.directory), chance)]
    chosen = []
    for room, size in zip(rooms, sizes, strict=True):
        share = max(1, round(count * size / sum(sizes))) if len(rooms) > 1 else count
        chosen += [(room, bit) for bit in some_bits(regions(room.directory), chance, share)]
    return chosen


def _take(report: Report, room: _Room, found: list[Violation], seed: str, kept: Path | None) -> None:
    for violation in found:
        room.kinds[violation.kind] += 1
        if room.kinds[violation.kind] <= _NAMED:
            name = f"flips-{room.made.name}-{violation.kind}-{room.kinds[violation.kind]}"
            report.add([violation], seed, keep(room.directory.path, kept, name))
        else:
            report.violations.append(violation)


class _Room:
    """A copy of a directory in one state, and what its bits have cost."""

    def __init__(self, made: Made, place: Path) -> None:
        shutil.copytree(made.path, place)
        self.made = made
        self.directory = DataDirectory(place)
        self.pristine = Pristine(place)
        self.sound: State | None = None
        self.outcomes: dict[str, Counter[str]] = {what: Counter() for what in OUTCOMES}
        self.kinds: Counter[str] = Counter()

    def flip(self, bit: Bit) -> list[Violation]:
        """Turn one over, start, and judge. It is not turned back here."""
        assert self.sound is not None
        self.pristine.flip(bit.region.path, bit.number)
        try:
            with _deadline():
                verdict = judge(bit, self.sound, start(self.directory, self.made.subscribers), self.made)
        except HangError:
            return [Violation("hang", f"{self.made.name}: {bit}: not done in {_DEADLINE_S} s")]
        except Exception:
            return [Violation("crash", f"{self.made.name}: {bit}: {traceback.format_exc(limit=-4)}")]
        for what, number in verdict.outcomes.items():
            self.outcomes[what][bit.region.what] += number
        return verdict.violations

    def table(self) -> list[str]:
        """One line for each part of the directory."""
        places = sorted({place for counts in self.outcomes.values() for place in counts})
        return [
            f"{self.made.name:6} {place:29} "
            + "; ".join(f"{counts[place]:,} {what}" for what, counts in self.outcomes.items() if counts[place])
            for place in places
        ]


@contextmanager
def _deadline() -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_DEADLINE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
