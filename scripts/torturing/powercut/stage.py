"""The workload on a disk that remembers: what is recorded is what power cuts are made from."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torturing.crew import Crew
from torturing.ledger import EARLIER_NS, Ledger, Note
from torturing.nursery import Nursery
from torturing.powercut import points
from torturing.powercut.disk import Disk
from torturing.powercut.image import Recording
from torturing.powercut.mount import FileSystem, make_image, mounted
from torturing.powercut.points import Step
from torturing.powercut.writeback import write_back_something
from torturing.workload import SHARERS, Plan

DATA = "data"
"""Where on the disk the data directory lies."""
FLAWS = ("journal", "segments")
"""What writers can leave out: the sync of the journal's files, or that of segments at a checkpoint."""
_PRELOAD = Path(__file__).parent / "preload"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a workload left behind."""

    first_contents: Path
    recording: Recording
    notes: list[Note]
    steps: list[Step]
    begin: int
    """From where on the power is cut: how long the log was before keyop came."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier power cut has left: a workload may go on with it."""

    image: Path
    notes: list[Note]


def record(
    kind: FileSystem,
    place: Path,
    plan: Plan,
    seconds: float,
    dice: random.Random,
    *,
    flaw: str = "",
    earlier: Earlier | None = None,
) -> Recorded:
    """Run a crew on a new file system for some seconds, with kills and checkpoints in between.

    ``place`` is made, and should be in memory. ``flaw``: one of `FLAWS`, that all writers have.
    Raises `RigError`, `CrewError`, `OverdueError` and `OSError`.
    """
    place.mkdir()
    first_contents = place / "first" if earlier is None else earlier.image
    if earlier is None:
        make_image(kind, first_contents)
    before = [] if earlier is None else _settled(earlier.notes)
    ledger = Ledger(place / "ledger")
    steps = place / "steps"
    with Disk(place / "disk", first_contents) as disk, mounted(kind, disk.path, place / "fs", direct=True):
        begin = disk.length()
        with _preloaded(steps, disk.mark, flaw), Nursery(place / "log") as nursery:
            crew = Crew(place / "fs" / DATA, ledger, plan, nursery, seed=dice.randrange(1 << 32), mark=disk.mark)
            # They are others than before the cut.
            for note in before:
                crew._lives[note["who"]] = max(crew._lives[note["who"]], note["life"] + 1)
            with crew:
                crew.start()
                _disturb(crew, seconds, dice)
    notes = [*before, *ledger.notes()]
    # The recovery of an earlier cut is cut as well, that of the file system, too.
    begin = begin if earlier is None else 0
    return Recorded(first_contents, Recording(disk.log), notes, points.read_steps(steps), begin)


def _settled(notes: list[Note]) -> list[Note]:
    """Notes of before an earlier cut: on this disk they were there from the beginning, and no sync is under way."""
    return [{**note, "mark": 0, "t": EARLIER_NS} for note in notes]


@contextmanager
def _preloaded(steps: Path, mark: Path, flaw: str) -> Iterator[None]:
    """While it lasts, new Python processes begin with what lies in ``preload``."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_PRELOAD), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["TORTURE_STEPS"] = str(steps)
    os.environ["TORTURE_MARK"] = str(mark)
    if flaw:
        os.environ["TORTURE_FLAW"] = flaw
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _disturb(crew: Crew, seconds: float, dice: random.Random) -> None:
    """Let it work while the kernel writes back, and now and then kill somebody or ask for a checkpoint; at the end all
    leave, or none does."""
    end = time.monotonic() + seconds
    next_time = 0.0
    while (now := time.monotonic()) < end:
        time.sleep(dice.uniform(0.01, 0.08))
        write_back_something(crew.directory, dice)
        crew.look_after()
        if now >= next_time:
            _disturb_somebody(crew, dice)
            next_time = now + dice.uniform(0.2, 1.2)
    if dice.random() < 0.5:
        crew.stop()


def _disturb_somebody(crew: Crew, dice: random.Random) -> None:
    what = dice.choice(("writer", "writer", "publisher", "subscriber", "checkpoint", "nothing"))
    if what == "writer":
        crew.kill_writer()
        crew.start_writer()
    elif what == "checkpoint" and "checkpoint" not in crew.members:
        crew.checkpoint()
        if crew.plan.replays and "replay" not in crew.members:
            crew.replay()
    elif what in ("publisher", "subscriber"):
        name = dice.choice(crew.publishers if what == "publisher" else crew.subscribers)
        if name in SHARERS and dice.random() < 0.5:
            if all(each in crew.members and crew.members[each].ready for each in SHARERS):
                crew.divide(dice)
        elif name in crew.members and crew.members[name].ready:
            crew.kill(name)
            crew.revive(name)
