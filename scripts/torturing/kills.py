"""kill -9 of writer, publishers and subscribers: at random moments, at every named step, in the middle of a recovery.

A crew works on a directory. One after the other is killed, and starts again in its next life. After some dozens of
kills the crew comes to its end in peace, and the directory is checked. Then comes a new directory.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torturing.findings import Progress, Report, Violation, keep
from torturing.lives import FLAWS
from torturing.living import LivingDirectory
from torturing.nursery import Nursery
from torturing.steps import steps_in_the_code

SAMPLE = ["--kills", "120", "--each", "60"]


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
