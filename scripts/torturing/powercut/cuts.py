"""./scripts/torture cuts: power cuts under a workload on a real file system, and what keyop makes of what is left."""

from __future__ import annotations

import argparse
import functools
import os
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torturing.findings import Progress, Report, SkippedError, Violation
from torturing.powercut import keeping
from torturing.powercut.control import control
from torturing.powercut.mount import FILE_SYSTEMS, missing
from torturing.powercut.room import Overdue, in_a_room
from torturing.powercut.round import Outcome, Round
from torturing.powercut.stage import FLAWS
from torturing.powercut.system import RigError
from torturing.workload import Plan

SAMPLE = ["--cuts", "40", "--fs", "ext4"]

_CUTS_A_ROUND = 100
_ROUND_S = 60.0
_CUT_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this attack."""
    parser.add_argument("--fs", choices=FILE_SYSTEMS, default="ext4", help="the file system (default: ext4)")
    parser.add_argument("--cuts", type=int, default=300, metavar="N", help="how many power cuts (default: 300)")
    parser.add_argument("--mode", choices=("strict", "periodic", "both"), default="both", help="default: both in turn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="images at once (default: one a core)")
    parser.add_argument("--again", type=Path, nargs="+", metavar="DIR", help="check kept images again, nothing else")
    parser.add_argument("--flaw", choices=FLAWS, help="a control: writers that leave out a sync, which has to show")
    parser.add_argument("--no-control", action="store_true", help="without the runs that have to find losses")


def run(arguments: argparse.Namespace) -> list[Report]:
    """Cut the power so many times. Raises `SkippedError` where that cannot be done, and `RigError`."""
    kinds = {keeping.kind_of(kept).name for kept in arguments.again or []} or {arguments.fs}
    for reason in filter(None, map(missing, kinds)):
        raise SkippedError(reason)
    with _stage() as stage:
        return [_again(arguments.again, stage) if arguments.again else _cuts(arguments, stage)]


@contextmanager
def _stage() -> Iterator[Path]:
    """A directory on which each room mounts a tmpfs of its own."""
    stage = Path(tempfile.mkdtemp(prefix="keyop-cuts-"))
    try:
        yield stage
    finally:
        stage.rmdir()


def _cuts(arguments: argparse.Namespace, stage: Path) -> Report:
    kind = FILE_SYSTEMS[arguments.fs]
    dice = random.Random(f"{arguments.seed}/{arguments.fs}")
    report = Report(f"cuts {kind.name}")
    progress = Progress(report.attack, arguments.cuts)
    if not (arguments.no_control or arguments.flaw):
        report.notes.append(control(kind, stage, dice, report))
    oldest_ms: defaultdict[int, float] = defaultdict(float)
    near: Counter[str] = Counter()
    number = 0
    while report.runs < arguments.cuts:
        count = min(_CUTS_A_ROUND, arguments.cuts - report.runs)
        plan = _plan(arguments.mode, number, dice)
        one = Round(
            kind, stage, plan, count, arguments.jobs, arguments.keep, dice.randrange(1 << 32), arguments.flaw or ""
        )
        outcome = _add(report, one, f"{arguments.seed}, round {number}")
        if outcome is not None:
            near.update(outcome.near)
            oldest_ms[plan.sync_interval_ms] = max(oldest_ms[plan.sync_interval_ms], outcome.oldest_loss_ms)
        progress.at(report.runs, f"({len(report.violations)} violations)")
        number += 1
    report.notes.append("near " + ", ".join(f"{what} {count}" for what, count in sorted(near.items())))
    damaged = report.counts.pop("damaged", 0)
    if damaged:
        report.notes.append(
            f"{damaged} more images do not count: {kind.name} itself was damaged or could not be mounted"
        )
    for interval_ms in sorted(filter(None, oldest_ms)):
        age_ms = oldest_ms[interval_ms]
        report.notes.append(f"synced every {interval_ms} ms: nothing was lost that was older than {age_ms:.0f} ms")
    if arguments.flaw:
        _must_have_found(report, arguments.flaw)
    return report.finish()


def _must_have_found(report: Report, flaw: str) -> None:
    """What a flawed writer costs is well; nothing is the violation."""
    kinds = Counter(violation.kind for violation in report.violations)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "nothing"
    report.notes.append(f"control, writers without the sync of {flaw}: {found}")
    report.violations.clear()
    if not kinds:
        report.add([Violation("blind", f"{report.runs} cuts found nothing where writers leave out: {flaw}")])


def _add(report: Report, one: Round, seed: str) -> Outcome | None:
    try:
        outcome = in_a_room(one.run, _ROUND_S + _CUT_S * one.count)
    except (Overdue, RigError) as error:
        # Also a crew that hung or fell before any power was cut.
        kind = "hang" if isinstance(error, Overdue) else "crash"
        report.runs += one.count
        report.add([Violation(kind, f"a round with {one.plan}: {error}")], seed)
        return None
    report.runs += outcome.runs
    report.counts.update(outcome.counts)
    report.recovered_ms += outcome.recovered_ms
    report.add(outcome.violations, seed)
    return outcome


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
        parts=dice.choice((0, 1, 2, 3)),
        replays=dice.random() < 0.5,
    )


def _again(kept: list[Path], stage: Path) -> Report:
    report = Report("cuts again")
    for directory in kept:
        finding = in_a_room(functools.partial(keeping.check_again, directory, stage), _ROUND_S)
        report.runs += 1
        report.recovered_ms += finding.recovered_ms
        report.add(finding.violations, kept=directory)
        if finding.damage:
            report.notes.append(f"{directory}: {finding.damage}")
    return report.finish()
