"""Another program, with the Go program's habits, works on a directory in between.

It finds the directory after a clean stop, after everything was killed, or with segments that a power cut has left
behind the journal. It appends, tears, rolls, removes segments, rewrites offsets. Then our programs come back, with real
processes: nothing of ours that was acknowledged and nothing of the other program's is lost, doubled or out of order.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from torturing.findings import Progress, Report, Violation, keep
from torturing.shared_memory import shared_memory, sweep_shared_memory
from torturing.visits.checking import check
from torturing.visits.habits import HABITS
from torturing.visits.life import BESIDE, STATES, live
from torturing.visits.shift import Ledger
from torturing.writer_process import WriterSilent

SAMPLE = ["--runs", "6", "--visits", "1"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command line."""
    parser.add_argument(
        "--runs",
        type=int,
        default=96,
        metavar="N",
        help="directories; each habit in each state takes its turn; 96 unless told",
    )
    parser.add_argument(
        "--visits", type=int, default=2, metavar="N", help="of the other program to each; 2 unless told"
    )
    parser.add_argument("--habit", choices=sorted(HABITS), help="only this one")
    parser.add_argument("--state", choices=[*STATES, BESIDE], help="the other program finds the directory so")


def run(arguments: argparse.Namespace) -> Report:
    """So many directories."""
    report = Report("habits")
    progress = Progress("habits", arguments.runs)
    turns = [
        (habit, state)
        for habit in ([arguments.habit] if arguments.habit else HABITS)
        for state in ([arguments.state] if arguments.state else STATES)
    ]
    if not (arguments.habit or arguments.state):
        turns.append(("append", BESIDE))
    # A small sample should not be made of the first habit alone.
    stride = next(step for step in (7, 5, 3, 1) if len(turns) % step or step == 1)
    place = Path(tempfile.mkdtemp(prefix="habits-", dir=arguments.dir))
    try:
        for number in range(arguments.runs):
            habit, state = turns[(arguments.seed + number * stride) % len(turns)]
            _run(report, place / str(number), f"{arguments.seed} {number}", habit, state, arguments)
            progress.at(number + 1, f"({len(report.violations)} violations)")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return report.finish()


def _run(report: Report, room: Path, seed: str, habit: str, state: str, arguments: argparse.Namespace) -> None:
    room.mkdir()
    data_dir, ledger = room / "data", Ledger(room / "ledger")
    found = []
    try:
        story = live(data_dir, ledger, seed, habit, state, arguments.visits)
        found = check(data_dir, ledger, story)
        (room / "story").write_text("\n".join([*story.steps, *(str(record) for record in story.log)]))
        report.counts["acknowledged"] += len(ledger.acknowledged())
        report.counts["by the other program"] += len(story.written)
        left = shared_memory(data_dir)
        if left:
            found.append(Violation("left", f"in shared memory: {[path.name for path in left]}"))
    except (WriterSilent, TimeoutError, RuntimeError) as error:
        found = [Violation("hang" if isinstance(error, (WriterSilent, TimeoutError)) else "crash", str(error))]
    finally:
        sweep_shared_memory(data_dir)
    report.runs += 1
    named = [Violation(each.kind, f"{habit}, {state}: {each.text}", count=each.count) for each in found]
    kept = keep(room, arguments.keep, f"habits-{habit.replace(' ', '-')}-{state}-{report.runs}") if named else None
    report.add(named, seed, kept)
    shutil.rmtree(room)
