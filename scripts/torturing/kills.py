"""kill -9 of writer, publishers and subscribers: at random moments, at every named step, in the middle of a recovery.

A crew works on a directory. One after the other is killed, and starts again in its next life. After some dozens of
kills the crew comes to its end in peace, and the directory is checked. Then comes a new directory.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from torturing.crew import Crew
from torturing.findings import Progress, Report, Violation, keep
from torturing.invariants import check
from torturing.ledger import Ledger
from torturing.lives import FLAWS
from torturing.member import CrewError, OverdueError
from torturing.nursery import Nursery, NurseryError
from torturing.shared_memory import shared_memory
from torturing.workload import Plan

SAMPLE = ["--kills", "120", "--each", "60"]

_KEYOP = Path(__file__).resolve().parents[2] / "keyop"

STEPS = {
    "frame.written": 60,
    "frame.synced": 30,
    "applied": 60,
    "settled": 60,
    "segment.created": 20,
    "segment.written": 60,
    "segment.rolled": 20,
    "journal.switched": 3,
    "checkpoint.segments_synced": 3,
    "checkpoint.synced": 3,
    "free.zeroed": 3,
    "free.synced": 3,
    "checkpoint.freed": 3,
    "segment.removed": 8,
}
"""Steps of a writer at work, and at the how manieth time at most it is killed there."""

RECOVERY_STEPS = {
    "recovery.journal_synced": 2,
    "recovery.written": 3,
    "recovery.applied": 1,
    "recovery.offsets_synced": 1,
    "recovery.zeroed": 2,
    "recovery.freed": 1,
}
"""The same for a writer that starts."""

UNAPPLIED_STEPS = {"frame.written": 30, "frame.synced": 30}
"""After a death here the recovery has something to write."""

FIRST_STEPS = {"offset.drafted": 4, "segment.created": 2, "segment.written": 2, "frame.written": 9}
"""Steps of the first writer of a directory: some files are made only once."""

_STEP_S = 0.3
_STEP_PATIENCE_S = 0.7
_TRIES = 5


def steps_in_the_code() -> set[str]:
    """Every step that keyop names."""
    found = re.compile(r'disk\.step\("([a-z_.]+)"\)')
    return {name for path in _KEYOP.rglob("*.py") for name in found.findall(path.read_text())}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command line."""
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="how many in all; 1000 unless told")
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="directories at the same time; 2 unless told")
    parser.add_argument(
        "--flaw", choices=sorted(FLAWS), help="a control: writers that do this wrong, which has to show"
    )
    parser.add_argument("--each", type=int, default=100, metavar="N", help="how many on one directory; 100 unless told")


def run(arguments: argparse.Namespace) -> Report:
    """Kill so often."""
    whole = _Run(arguments)
    place = Path(tempfile.mkdtemp(prefix="kills-", dir=arguments.dir))
    directories = -(-arguments.kills // arguments.each)
    lanes = min(arguments.lanes, directories)
    try:
        with ThreadPoolExecutor(lanes) as pool:
            rooms = [[place / str(number) for number in range(lane, directories, lanes)] for lane in range(lanes)]
            outcomes = [pool.submit(whole.lane, lane_rooms) for lane_rooms in rooms]
            try:
                for outcome in outcomes:
                    outcome.result()
            finally:
                whole.given_up = True  # Ctrl-C: each lane comes to the end of its directory
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return whole.finish()


class _Run:
    """All directories of one run, several at a time: a crew that waits for its disk leaves the processor to another."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given_up = False
        self._arguments = arguments
        self._report = Report("kills")
        self._progress = Progress("kills", arguments.kills)
        self._at_steps: Counter[str] = Counter()
        self._lock = threading.Lock()

    def lane(self, rooms: list[Path]) -> None:
        """One directory after the other, with a nursery for all."""
        log = rooms[0].with_suffix(".log")
        with Nursery(log) as nursery:
            for room in rooms:
                if self.given_up:
                    return
                room.mkdir()
                number = int(room.name)
                kills = min(self._arguments.each, self._arguments.kills - number * self._arguments.each)
                living = LivingDirectory(room, nursery, self._arguments.seed, number, self._arguments.flaw or "")
                found = living.run(kills)
                with self._lock:
                    self._take(number, room, living, found, log)
                shutil.rmtree(room, ignore_errors=True)

    def _take(self, number: int, room: Path, living: LivingDirectory, found: list[Violation], log: Path) -> None:
        report, seed = self._report, self._arguments.seed
        kept = None
        if found:
            shutil.copy(log, room / "log")
            kept = keep(room, self._arguments.keep, f"kills-{seed}-{number}")
        report.add(found, f"{seed} (directory {number})", kept)
        report.runs += living.kills.total()
        report.counts.update(living.counts())
        report.recovered_ms += living.crew.recovered_ms
        self._at_steps.update(living.at_steps)
        self._progress.at(report.runs, f"({len(report.violations)} violations)")

    def finish(self) -> Report:
        """The report, with the steps at which writers were killed."""
        steps = ", ".join(f"{step} {count}" for step, count in sorted(self._at_steps.items()))
        self._report.notes.append(f"{self._at_steps.total()} at steps: {steps}")
        never = steps_in_the_code() - self._at_steps.keys()
        if never:
            self._report.notes.append("never at: " + ", ".join(sorted(never)))
        if self._arguments.flaw:
            self._report.must_have_found(FLAWS[self._arguments.flaw].costs, self._arguments.flaw)
        return self._report.finish()


class LivingDirectory:
    """One directory under kills."""

    def __init__(self, room: Path, nursery: Nursery, seed: int, number: int, flaw: str = "") -> None:
        self.kills: Counter[str] = Counter()
        self.at_steps: Counter[str] = Counter()
        self._chance = random.Random(f"{seed}/{number}")
        self._plan = replace(_plan(self._chance), flaw=flaw)
        (room / "plan.json").write_text(json.dumps(self._plan.as_dict(), indent=1))
        self._ledger = Ledger(room / "ledger")
        self._directory = room / "data"
        self._nursery = nursery
        self.crew = Crew(self._directory, self._ledger, self._plan, nursery, seed=f"{seed}/{number}")
        self._wanted = 0

    def run(self, kills: int) -> list[Violation]:
        """Kill so often, or a few times more; then let all come to its end, and check."""
        self._wanted = kills
        try:
            self._begin()
            since = 0
            while self.kills.total() < kills:
                before = self.kills.total()
                self._kill_somebody()
                since += self.kills.total() - before
                if since >= 20:
                    since = 0
                    self._see_that_it_works()
            self._see_that_it_works()
            self.crew.stop()
            found = check(self._directory, self._ledger, self._plan)
            return found + self._left_over()
        except CrewError as error:
            return [Violation("crash", str(error))]
        except (OverdueError, NurseryError) as error:
            return [Violation("hang", str(error))]
        finally:
            self.crew.abandon()

    def counts(self) -> Counter[str]:
        """For the report."""
        crew = self.crew
        return Counter(
            acknowledged=crew.acknowledged.total(), handled=crew.handled.total(), directories=1, **self.kills
        )

    def _begin(self) -> None:
        """The crew starts; in some directories its first writer is killed where it makes the first files."""
        crash_at = ""
        if self._chance.random() < 0.5:
            crash_at = self._step(FIRST_STEPS)
        self.crew.start(crash_at)
        if crash_at:
            self._await_step(crash_at)
            self._new_writer()

    def _see_that_it_works(self) -> None:
        self._new_writer()
        self.crew.progress(2)

    # ---- who, and when

    def _kill_somebody(self) -> None:
        kind = self._chance.random()
        if kind < 0.28:
            self._moment()
            self._kill(self._chance.choice(self.crew.publishers))
        elif kind < 0.56:
            self._moment()
            self._kill(self._chance.choice(("plain", "chain", "chain", "end")))
        elif kind < 0.66:
            self._moment()
            if self._chance.random() < 0.3:
                # It drains, syncs, frees the journal and says goodbye: a kill may come in the middle of that.
                self.crew.dismiss_writer()
                self._moment()
            self._kill_writer()
            if self._chance.random() < 0.95:
                self._new_writer()  # else whoever needs one starts it, within half a second
        elif kind < 0.8:
            self._kill_at(self._step(STEPS))
        elif kind < 0.9:
            if self._chance.random() < 0.5:
                self._kill_at(self._step(UNAPPLIED_STEPS))
            for _ in range(self._chance.choice((1, 2, 2, 3))):
                self._kill_at(self._step(RECOVERY_STEPS))
        elif kind < 0.95:
            self._kill_several()
        else:
            self._kill_checkpoint()

    def _moment(self) -> None:
        """A moment at random is what is tested."""
        time.sleep(self._chance.choice((0.0, 0.005, 0.005, 0.03, 0.1)) * self._chance.random())

    def _kill(self, name: str) -> None:
        self.crew.kill(name)
        self.kills["publisher" if name.startswith("p") and name != "plain" else name] += 1
        self.crew.revive(name)

    def _kill_writer(self) -> None:
        if self.crew.kill_writer():
            self.kills["writer"] += 1

    def _new_writer(self) -> None:
        self.crew.look_after()
        if "writer" not in self.crew.members and not self.crew.writer_pid():
            self.crew.start_writer()

    def _kill_several(self) -> None:
        """Writer and some others at the same moment, before any of them starts again."""
        self._moment()
        names = [*self.crew.publishers, "plain", "chain", "end"]
        victims = self._chance.sample(names, self._chance.randrange(1, len(names) + 1))
        self._kill_writer()
        for name in victims:
            self.crew.kill(name)
            self.kills["several"] += 1
        if self._chance.random() < 0.5:
            self.crew.start_writer()
        self._chance.shuffle(victims)
        for name in victims:
            self.crew.revive(name)
        self._new_writer()

    def _kill_checkpoint(self) -> None:
        """Somebody who asks for a checkpoint; mostly it is done before the kill, and the writer is killed in it."""
        name = self.crew.checkpoint()
        self._moment()
        if self._chance.random() < 0.5:
            self._kill_writer()
            self._new_writer()
        if name in self.crew.members:
            self.crew.kill(name)
            self.kills["checkpoint"] += 1

    # ---- at a step

    def _step(self, steps: dict[str, int]) -> str:
        name = self._chance.choice(sorted(steps))
        if name == "segment.removed" and not self._plan.compaction:
            name = "segment.rolled"
        often = 1 if self._chance.random() < 0.4 else self._chance.randint(1, steps[name])
        return f"{name}:{often}"

    def _kill_at(self, step: str) -> None:
        """Have a writer take over that dies at a step, and another one after it."""
        for _ in range(_TRIES):
            self._kill_writer()
            self.crew.start_writer(step)
            if self._await_step(step):
                break
        self._new_writer()

    def _await_step(self, step: str) -> bool:
        """Wait for the death of the writer that was told to die; False if somebody else's was quicker to start."""
        starting = step.startswith("recovery.")
        status = self.crew.writer_ended(_STEP_S, while_starting=starting)
        if status is None and not starting:
            # Some steps come with a checkpoint only.
            self.crew.checkpoint()
            status = self.crew.writer_ended(_STEP_PATIENCE_S)
        if status == -9:
            self.kills["writer"] += 1
            self.at_steps[step.partition(":")[0]] += 1
        return status != 69

    # ---- the end

    def _left_over(self) -> list[Violation]:
        names = [path.name for path in shared_memory(self._directory)]
        names += [path.name for path in (self._directory / "run").glob("*port-*")]
        names += [path.name for path in (self._directory / "run").glob(".new-*")]
        return [Violation("left over", "after a clean stop: " + ", ".join(names))] if names else []


def _plan(chance: random.Random) -> Plan:
    return Plan(
        sync_interval_ms=chance.choice((0, 0, 20, 200)),
        segment_mb=chance.choice((0.004, 0.004, 0.05)),
        journal_mb=chance.choice((0.0625, 0.0625, 0.25)),
        compaction=chance.random() < 0.4,
        publishers=chance.choice((1, 2, 2, 3)),
        pause_s=chance.choice((0.0005, 0.002, 0.005)),
        big=chance.choice((0.0, 0.01, 0.03)),
    )
