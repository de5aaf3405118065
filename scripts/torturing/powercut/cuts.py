"""./scripts/torture cuts: power cuts under a workload on a real file system, and what keyop makes of what is left."""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import select
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torturing.findings import Progress, Report, SkippedError, Violation, keep
from torturing.powercut import control, points, system
from torturing.powercut.checkup import Before, Finding, check_image
from torturing.powercut.image import Images
from torturing.powercut.mount import FILE_SYSTEMS, FileSystem, missing
from torturing.powercut.points import Cut
from torturing.powercut.room import Overdue, Room, in_a_room
from torturing.powercut.stage import Recorded, record
from torturing.workload import Plan

SAMPLE = ["--cuts", "60", "--fs", "ext4"]

_CUTS_A_ROUND = 100
_IMAGE_TIMEOUT_S = 90.0
# How much longer than its interval a periodic sync may be late on a machine that is busy with other things: beyond
# that, what was acknowledged has to be there.
_LATE_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this attack."""
    parser.add_argument("--fs", choices=FILE_SYSTEMS, default="ext4", help="the file system (default: ext4)")
    parser.add_argument("--cuts", type=int, default=300, metavar="N", help="how many power cuts (default: 300)")
    parser.add_argument("--mode", choices=("strict", "periodic", "both"), default="both", help="default: both in turn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="images at once (default: one a core)")
    parser.add_argument(
        "--again", type=Path, nargs="+", metavar="DIR", help="check kept images again, nothing else"
    )
    parser.add_argument("--no-control", action="store_true", help="without the runs that have to find losses")


def run(arguments: argparse.Namespace) -> list[Report]:
    """Cut the power so many times. Raises `SkippedError` where that cannot be done, and `RigError`."""
    if arguments.again:
        return [again(arguments.again)]
    reason = missing(arguments.fs)
    if reason is not None:
        raise SkippedError(reason)
    kind = FILE_SYSTEMS[arguments.fs]
    dice = random.Random(f"{arguments.seed}/{arguments.fs}")
    report = Report(f"cuts {kind.name}")
    progress = Progress(report.attack, arguments.cuts)
    with _stage() as stage:
        if not arguments.no_control:
            report.notes.append(control.control(kind, stage, dice, report))
        number = 0
        while report.runs < arguments.cuts:
            plan = _plan(arguments.mode, number, dice)
            count = min(_CUTS_A_ROUND, arguments.cuts - report.runs)
            seed = f"{arguments.seed}, round {number}"
            _round(kind, stage, plan, count, seed, dice.randrange(1 << 32), arguments, report)
            progress.at(report.runs, f"{len(report.violations)} violations")
            number += 1
    return [report.finish()]


@contextmanager
def _stage() -> Iterator[Path]:
    """A directory on which each room mounts a tmpfs of its own."""
    stage = Path(tempfile.mkdtemp(prefix="keyop-cuts-"))
    try:
        yield stage
    finally:
        stage.rmdir()


def _plan(mode: str, number: int, dice: random.Random) -> Plan:
    """Rounds differ: journals that turn all the time or grow, long and short segments, with and without removal."""
    strict = mode == "strict" or (mode == "both" and number % 2 == 0)
    return Plan(
        sync_interval_ms=0 if strict else dice.choice((5, 20, 100)),
        segment_mb=dice.choice((0.004, 0.004, 0.03)),
        journal_mb=dice.choice((0.0625, 0.0625, 0.25, 4)),
        compaction=dice.random() < 0.4,
        publishers=dice.choice((1, 2, 3)),
        pause_s=dice.choice((0.001, 0.003)),
        big=dice.choice((0.01, 0.04)),
    )


# ---- a round: one workload, many cuts


@dataclass(slots=True)
class _Outcome:
    """What a round hands back from its room."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    recovered_ms: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _round(
    kind: FileSystem,
    stage: Path,
    plan: Plan,
    count: int,
    seed: str,
    dice_seed: int,
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    work = functools.partial(_in_the_room, kind, stage, plan, count, dice_seed, arguments.jobs, arguments.keep)
    try:
        outcome = in_a_room(work, 60.0 + 3.0 * count)
    except Overdue as error:
        report.add([Violation("hang", f"a round: {error}")], seed)
        report.runs += count
        return
    report.runs += outcome.runs
    report.counts.update(outcome.counts)
    report.recovered_ms += outcome.recovered_ms
    report.notes += outcome.notes
    report.add(outcome.violations, seed)


def _in_the_room(
    kind: FileSystem, stage: Path, plan: Plan, count: int, dice_seed: int, jobs: int, kept: Path | None
) -> _Outcome:
    system.mount("tmpfs", stage, "tmpfs")
    dice = random.Random(dice_seed)
    recorded = record(kind, stage, plan, 3.5 if plan.journal_mb > 1 else 2.0, dice)
    cuts = points.choose(recorded.recording, recorded.steps, recorded.begin, count, dice)
    outcome = _Outcome()
    for cut, image, finding in _check_all(kind, stage, plan, recorded, cuts, jobs):
        outcome.runs += 1
        outcome.counts["acknowledged"] += finding.acknowledged
        outcome.recovered_ms += finding.recovered_ms
        if finding.mount_error:
            outcome.counts["unmountable"] += 1
            outcome.notes.append(f"cut at {cut}: {finding.mount_error}")
        if finding.violations:
            where = _keep(kind, plan, recorded, cut, image, finding, kept)
            outcome.violations += [
                Violation(found.kind, f"cut at {cut}, {plan}: {found.text}", kept=str(where or ""))
                for found in finding.violations
            ]
    return outcome


def _check_all(
    kind: FileSystem, stage: Path, plan: Plan, recorded: Recorded, cuts: list[Cut], jobs: int
) -> Iterator[tuple[Cut, Path, Finding]]:
    """Check the images of all cuts, some at a time, each in a room of its own."""
    images = Images(recorded.recording, recorded.first_contents)
    rooms: dict[Room[Finding], tuple[Cut, Path]] = {}
    waiting = iter(cuts)
    try:
        while True:
            while len(rooms) < jobs and (cut := next(waiting, None)) is not None:
                image = stage / f"cut-{cut.point}-{cut.survival.seed}" / "image"
                image.parent.mkdir()
                rooms[_check(kind, image, plan, recorded, images, cut)] = cut, image
            if not rooms:
                return
            for room in _ended(rooms):
                cut, image = rooms.pop(room)
                yield cut, image, _result(room)
                shutil.rmtree(image.parent)
    finally:
        for room in rooms:
            room.close()


def _check(kind: FileSystem, image: Path, plan: Plan, recorded: Recorded, images: Images, cut: Cut) -> Room[Finding]:
    tail = images.tail(cut.point)

    def work() -> Finding:
        images.save(cut.survival.of(tail, kind.superblocks), image)
        return check_image(kind, image, _before(plan, recorded, cut))

    return Room(work, _IMAGE_TIMEOUT_S)


def _before(plan: Plan, recorded: Recorded, cut: Cut) -> Before:
    late_ns = int(_LATE_S * 1e9) + plan.sync_interval_ms * 1_000_000
    return Before(recorded.notes, plan, cut.point, recorded.recording.time_ns(cut.point) - late_ns)


def _ended(rooms: dict[Room[Finding], tuple[Cut, Path]]) -> list[Room[Finding]]:
    """Wait until there are some, or some are overdue."""
    heard = select.select(list(rooms), [], [], 1.0)[0]
    return [room for room in rooms if (room in heard and room.hear()) or room.overdue]


def _result(room: Room[Finding]) -> Finding:
    try:
        return room.result()
    except (Overdue, system.RigError) as error:
        kind = "hang" if isinstance(error, Overdue) else "rig"
        return Finding(violations=[Violation(kind, str(error))])


def _keep(
    kind: FileSystem, plan: Plan, recorded: Recorded, cut: Cut, image: Path, finding: Finding, kept: Path | None
) -> Path | None:
    """The image as the cut left it, made anew, and all that one needs to check it again."""
    if kept is None:
        return None
    name = f"cut-{kind.name}-{cut.point}-{cut.survival.seed}"
    images = Images(recorded.recording, recorded.first_contents)
    images.save(cut.survival.of(images.tail(cut.point), kind.superblocks), image.with_name("again"))
    keep(image.with_name("again"), kept, f"{name}/image")
    for file in ("ledger", "log"):
        if image.with_name(file).exists():
            keep(image.with_name(file), kept, f"{name}/{file}")
    before = _before(plan, recorded, cut)
    known = {
        "fs": kind.name,
        "cut": asdict(cut),
        "plan": plan.as_dict(),
        "violations": [str(found) for found in finding.violations],
        "synced_before_ns": before.synced_before_ns,
        "notes": [note for note in before.notes if note["mark"] <= cut.point],
    }
    (kept / name / "known.json").write_text(json.dumps(known))
    return kept / name


def again(kept: list[Path]) -> Report:
    """Check images that were kept, as they were left."""
    report = Report("cuts again")
    for directory in kept:
        known = json.loads((directory / "known.json").read_text())
        plan = Plan(**known["plan"])
        before = Before(known["notes"], plan, known["cut"]["point"], known["synced_before_ns"])
        with _stage() as stage:
            work = functools.partial(_again_in_the_room, FILE_SYSTEMS[known["fs"]], directory, stage, before)
            finding = in_a_room(work, _IMAGE_TIMEOUT_S)
        report.runs += 1
        report.recovered_ms += finding.recovered_ms
        report.add(finding.violations, kept=directory)
    return report.finish()


def _again_in_the_room(kind: FileSystem, kept: Path, stage: Path, before: Before) -> Finding:
    system.mount("tmpfs", stage, "tmpfs")
    (stage / "image").touch()
    system.copy_sparse(kept / "image", stage / "image")
    return check_image(kind, stage / "image", before)
