"""One workload, and many cuts of the power under it. It runs in a room of its own."""

from __future__ import annotations

import functools
import random
import select
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torturing.findings import Violation
from torturing.powercut import keeping, points, system
from torturing.powercut.checkup import Before, Finding, check_image
from torturing.powercut.image import Images
from torturing.powercut.mount import FileSystem
from torturing.powercut.points import Cut
from torturing.powercut.room import Overdue, Room
from torturing.powercut.stage import Earlier, Recorded, record
from torturing.workload import Plan

_IMAGE_TIMEOUT_S = 90.0
_SECONDS = 2.0
# As long as it takes to fill a journal file of the size that they begin with.
_SECONDS_UNTIL_GROWN = 3.5
_SECONDS_AGAIN = 1.5
_FIRST_JOURNAL_MB = 1.0


@dataclass(slots=True)
class Outcome:
    """What a round hands back."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    recovered_ms: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    oldest_loss_ms: float = 0.0
    near: Counter[str] = field(default_factory=Counter)
    """What the cuts were near to: steps of the writer, flushes."""


@dataclass(frozen=True, slots=True)
class Round:
    """Its parts: where, what, how many cuts, how many of their images at once, and where images are kept."""

    kind: FileSystem
    stage: Path
    plan: Plan
    count: int
    jobs: int
    kept: Path | None
    seed: int
    flaw: str = ""

    def run(self) -> Outcome:
        """A workload and cuts, then another one that goes on with what one of them has left, and cuts again.

        Raises `RigError`, `CrewError`, `OverdueError` and `OSError`.
        """
        system.mount("tmpfs", self.stage, "tmpfs")
        dice = random.Random(self.seed)
        outcome = Outcome()
        seconds = _SECONDS_UNTIL_GROWN if self.plan.journal_mb > _FIRST_JOURNAL_MB else _SECONDS
        recorded = record(self.kind, self.stage / "first", self.plan, seconds, dice, flaw=self.flaw)
        left = self._cut(recorded, self.count - self.count // 3, dice, outcome)
        if left is None:
            return outcome
        earlier = self._earlier(recorded, left)
        seconds = _SECONDS_AGAIN
        recorded = record(self.kind, self.stage / "again", self.plan, seconds, dice, flaw=self.flaw, earlier=earlier)
        self._cut(recorded, self.count // 3, dice, outcome)
        return outcome

    def _cut(self, recorded: Recorded, count: int, dice: random.Random, outcome: Outcome) -> Cut | None:
        """Cut so often; one of the cuts after which everything was well."""
        cuts = points.choose(recorded.recording, recorded.steps, recorded.begin, count, dice)
        survived = []
        for cut, image, finding in self._check_all(recorded, cuts):
            if finding.damage:
                outcome.counts["damaged"] += 1
                continue
            outcome.runs += 1
            outcome.near[cut.why] += 1
            outcome.counts["acknowledged"] += finding.acknowledged
            outcome.recovered_ms += finding.recovered_ms
            outcome.oldest_loss_ms = max(outcome.oldest_loss_ms, finding.oldest_loss_ms)
            if finding.violations:
                outcome.violations += self._violations(recorded, cut, image, finding)
            else:
                survived.append(cut)
        return dice.choice(sorted(survived, key=lambda cut: cut.point)) if survived else None

    def _earlier(self, recorded: Recorded, cut: Cut) -> Earlier:
        image = self.stage / "left"
        self._save(recorded, cut, image)
        return Earlier(image, [note for note in recorded.notes if note["mark"] <= cut.point])

    def _save(self, recorded: Recorded, cut: Cut, image: Path) -> None:
        images = Images(recorded.recording, recorded.first_contents)
        images.save(cut.survival.of(images.tail(cut.point), self.kind.superblocks), image)

    def _check_all(self, recorded: Recorded, cuts: list[Cut]) -> Iterator[tuple[Cut, Path, Finding]]:
        """Check the images of all cuts, some at a time, each in a room of its own."""
        images = Images(recorded.recording, recorded.first_contents)
        rooms: dict[Room[Finding], tuple[Cut, Path]] = {}
        waiting = iter(cuts)
        try:
            while True:
                while len(rooms) < self.jobs and (cut := next(waiting, None)) is not None:
                    image = self.stage / f"cut-{cut.point}-{cut.survival.seed}" / "image"
                    image.parent.mkdir()
                    rooms[self._check(recorded, images, cut, image)] = cut, image
                if not rooms:
                    return
                for room in _ended(rooms):
                    cut, image = rooms.pop(room)
                    yield cut, image, _result(room)
                    shutil.rmtree(image.parent)
        finally:
            for room in rooms:
                room.close()

    def _check(self, recorded: Recorded, images: Images, cut: Cut, image: Path) -> Room[Finding]:
        survivors = cut.survival.of(images.tail(cut.point), self.kind.superblocks)
        before = self._before(recorded, cut)

        def work() -> Finding:
            images.save(survivors, image)
            return check_image(self.kind, image, before)

        return Room(work, _IMAGE_TIMEOUT_S)

    def _before(self, recorded: Recorded, cut: Cut) -> Before:
        cut_ns = recorded.recording.time_ns(cut.point)
        return Before(recorded.notes, self.plan, cut.point, cut_ns, drained=not self.flaw)

    def _violations(self, recorded: Recorded, cut: Cut, image: Path, finding: Finding) -> list[Violation]:
        where = None
        if self.kept is not None:
            save = functools.partial(self._save, recorded, cut)
            before = self._before(recorded, cut)
            where = keeping.keep_image(self.kind, cut, before, finding, image.parent, save, self.kept)
        text = f"cut at {cut}, {self.plan}"
        return [Violation(found.kind, f"{text}: {found.text}", kept=str(where or "")) for found in finding.violations]


def _ended(rooms: dict[Room[Finding], tuple[Cut, Path]]) -> list[Room[Finding]]:
    """Those that have ended, or are overdue. Waits a little for some."""
    heard = select.select(list(rooms), [], [], 1.0)[0]
    return [room for room in rooms if (room in heard and room.hear()) or room.overdue]


def _result(room: Room[Finding]) -> Finding:
    try:
        return room.result()
    except Overdue as error:
        return Finding(violations=[Violation("hang", str(error))])
    except system.RigError as error:
        return Finding(violations=[Violation("rig", str(error))])
