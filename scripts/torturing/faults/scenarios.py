"""Disks that fail, are full, or are slow: every fault of the catalogue, situations of their own, and what the dice say.

Each scenario has a disk, a writer and a crew of its own. The controls are writers that take a failed sync lightly: what
that costs has to be found.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from torturing.crew import CrewError, OverdueError
from torturing.faults.catalogue import FAULTS, Fault
from torturing.faults.mount import missing
from torturing.faults.plays import play, play_all_along, play_at_the_end, play_with_kill
from torturing.faults.random_faults import play_at_random, random_plan
from torturing.faults.situations import QUICK, SLOW, STRICT_ONLY
from torturing.faults.stage import Stage
from torturing.findings import LOSSES, Progress, Report, SkippedError, Violation, keep
from torturing.nursery import Nursery, NurseryError
from torturing.workload import Plan
from torturing.writer_process import WriterSilent

SAMPLE = ["--faults", "6", "--runs", "1"]

_MODES = {"strict": 0, "periodic": 50}
_CONTROLS = (
    ("sync-no-journal", "journal-write-eio-once", play),
    ("sync-journal-again", "journal-sync-drops-once-roomy", play),
    ("sync-segments-again", "segment-sync-drops-once", play),
    ("sync-offsets-again", "offset-syncs-drop-first", play_all_along),
)
_CONTROL_TRIES = 6
_BROKEN = (CrewError, OverdueError, WriterSilent, NurseryError, subprocess.TimeoutExpired, OSError, RuntimeError)


@dataclass(frozen=True)
class Scenario:
    """What is played on one stage."""

    name: str
    plan: Plan
    play: Callable[[Stage], None]
    flaw: str = ""
    """A control: of this writer something has to be found."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command line."""
    parser.add_argument(
        "--faults",
        type=int,
        metavar="N",
        help="so many of the catalogue, chosen by the seed; all unless told",
    )
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="random scenarios; 30 unless told")
    parser.add_argument("--only", metavar="WORD", help="only scenarios that have this in their name")
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="scenarios at the same time; 2 unless told")


def run(arguments: argparse.Namespace) -> Report:
    """Play them. Raises `SkippedError` where there is no FUSE."""
    reason = missing()
    if reason:
        raise SkippedError(reason)
    scenarios = list(_chosen(arguments))
    place = Path(tempfile.mkdtemp(prefix="faults-", dir=arguments.dir))
    try:
        return _Run(arguments, place, scenarios).report
    finally:
        shutil.rmtree(place, ignore_errors=True)


# ---- which


def _chosen(arguments: argparse.Namespace) -> Iterator[Scenario]:
    dice = random.Random(arguments.seed)
    of_catalogue = list(_of_catalogue())
    if arguments.faults is not None:
        of_catalogue = dice.sample(of_catalogue, min(arguments.faults, len(of_catalogue)))
    scenarios = [*of_catalogue, *_controls(dice)]
    if arguments.faults is None:
        scenarios += _situations()
    # The long ones are begun early.
    scenarios.reverse()
    scenarios += [_at_random(f"{arguments.seed}/{number}") for number in range(arguments.runs)]
    yield from (each for each in scenarios if not arguments.only or arguments.only in each.name)


def _of_catalogue() -> Iterator[Scenario]:
    for mode, sync_ms in _MODES.items():
        for fault in FAULTS:
            plan = fault.in_mode(sync_ms)
            yield Scenario(f"{fault.name} {mode}", plan, partial(_play, play, fault))
            if fault.stalls:
                yield Scenario(f"{fault.name} {mode} with a kill", plan, partial(_play, play_with_kill, fault))
            if fault.passes:
                yield Scenario(f"{fault.name} {mode} at the end", plan, partial(_play, play_at_the_end, fault))
            if fault.all_along:
                yield Scenario(f"{fault.name} {mode} all along", plan, partial(_play, play_all_along, fault))


def _situations() -> Iterator[Scenario]:
    for mode, sync_ms in _MODES.items():
        for situation in (*QUICK, *SLOW):
            if mode == "strict" or situation not in STRICT_ONLY:
                yield Scenario(f"{situation.__name__} {mode}", Plan(sync_interval_ms=sync_ms), situation)


def _controls(dice: random.Random) -> Iterator[Scenario]:
    by_name = {fault.name: fault for fault in FAULTS}
    for flaw, fault_name, scene in _CONTROLS:
        fault = by_name[fault_name]
        # Of the lost offsets only the strict chain makes a double that is sure.
        sync_ms = 0 if scene is play_all_along else dice.choice(list(_MODES.values()))
        yield Scenario(f"control {flaw}", fault.in_mode(sync_ms), partial(_play, scene, fault), flaw)


def _at_random(seed: str) -> Scenario:
    dice = random.Random(seed)
    return Scenario(f"random {seed}", random_plan(dice), lambda stage: play_at_random(stage, dice))


def _play(scene: Callable[[Stage, Fault], None], fault: Fault, stage: Stage) -> None:
    scene(stage, fault)


# ---- how


def _losses(stage: Stage) -> list[Violation]:
    return [violation for violation in stage.violations if violation.kind in LOSSES]


class _Run:
    """All scenarios, some at the same time: they mostly wait."""

    def __init__(self, arguments: argparse.Namespace, place: Path, scenarios: list[Scenario]) -> None:
        self.report = Report("faults")
        self._arguments = arguments
        self._place = place
        self._progress = Progress("faults", len(scenarios))
        self._lock = threading.Lock()
        self._given_up = False
        self._waiting: SimpleQueue[tuple[int, Scenario]] = SimpleQueue()
        for item in enumerate(scenarios):
            self._waiting.put(item)
        lanes = max(1, min(arguments.lanes, len(scenarios)))
        with ThreadPoolExecutor(lanes) as pool:
            ends = [pool.submit(self._lane, number) for number in range(lanes)]
            try:
                for end in ends:
                    end.result()
            finally:
                self._given_up = True  # Ctrl-C: each lane comes to the end of its scenario
        self.report.finish()

    def _lane(self, number: int) -> None:
        log = self._place / f"lane-{number}.log"
        with Nursery(log) as nursery:
            while not self._given_up:
                try:
                    at, scenario = self._waiting.get_nowait()
                except Empty:
                    return
                self._one(self._place / str(at), scenario, nursery)

    def _one(self, room: Path, scenario: Scenario, nursery: Nursery) -> None:
        stage = self._played(room, scenario, nursery)
        tries = 1
        while scenario.flaw and not _losses(stage) and tries < _CONTROL_TRIES:
            # What it loses was perhaps written again by chance.
            shutil.rmtree(room)
            stage = self._played(room, scenario, nursery)
            tries += 1
        with self._lock:
            self._take(room, scenario, stage, nursery.log)
        shutil.rmtree(room, ignore_errors=True)

    def _played(self, room: Path, scenario: Scenario, nursery: Nursery) -> Stage:
        stage = Stage(room, scenario.plan, nursery, f"{self._arguments.seed}/{scenario.name}", scenario.flaw)
        with stage:
            try:
                scenario.play(stage)
            except _BROKEN as error:
                kind = "hang" if isinstance(error, (OverdueError, subprocess.TimeoutExpired)) else "broken"
                stage.say(kind, f"{type(error).__name__}: {error}")
        return stage

    def _take(self, room: Path, scenario: Scenario, stage: Stage, log: Path) -> None:
        report = self.report
        report.runs += 1
        report.counts["acknowledged"] += stage.crew.acknowledged.total()
        report.counts["power cuts"] += stage.cuts
        report.recovered_ms += stage.recovered_ms
        if scenario.flaw:
            self._take_control(scenario, stage)
        elif stage.violations:
            shutil.copy(log, room / "log")
            (room / "told").write_text("\n".join([scenario.name, str(scenario.plan), *stage.told, ""]))
            name = f"faults-{self._arguments.seed}-{scenario.name.replace(' ', '-').replace('/', '-')}"
            kept = keep(room, self._arguments.keep, name)
            told = [Violation(found.kind, f"{scenario.name}: {found.text}") for found in stage.violations]
            report.add(told, f"{self._arguments.seed} --only {scenario.name!r}", kept)
        self._progress.at(report.runs, f"({len(report.violations)} violations)")

    def _take_control(self, scenario: Scenario, stage: Stage) -> None:
        found = {violation.kind for violation in stage.violations}
        if _losses(stage):
            self.report.notes.append(f"{scenario.name}: found {', '.join(sorted(found))}, as it has to")
        else:
            self.report.add([Violation("control", f"{scenario.name}: nothing was found of what it loses")], self._seed)

    @property
    def _seed(self) -> str:
        return str(self._arguments.seed)
