"""Single bits that turn over: what each of them costs, and whether it is said.

A bit in a segment costs at most its record, one in the journal at most its frame, one in an offset file repeated
messages (and an exactly-once subscriber is refused); all of it is said by the writer's log, the readers and `keyop
verify`. Only in a line that stays readable a bit may change a message without a word: lines have no check, as in the Go
program. Bits of shared memory hang nothing and crash nothing, and cost at most what a ring holds.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torturing.findings import Report
from torturing.flipping.directories import Room
from torturing.flipping.files import flip_files
from torturing.flipping.flaws import FLAWS
from torturing.flipping.live import flip_live
from torturing.flipping.memory import flip_memory
from torturing.flipping.processes import flip_before_processes

SAMPLE = ["--flips", "1500", "--large", "4", "--processes", "5", "--memory", "40", "--live", "300"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command line."""
    for name, default, what in (
        ("flips", 20_000, "bits of a small directory in three states"),
        ("large", 200, "bits of a large directory"),
        ("processes", 60, "bits before a start with real processes"),
        ("memory", 1_000, "bits of the shared memory of killed processes"),
        ("live", 2_000, "bits of shared memory in use"),
    ):
        parser.add_argument(
            f"--{name}", type=_count, default=default, metavar="N|all", help=f"{what}; {default:,} unless told"
        )
    parser.add_argument(
        "--flaw", choices=sorted(FLAWS), help="a control: code that does this wrong, which has to show; --flips only"
    )


def run(arguments: argparse.Namespace) -> list[Report]:
    """All parts that are asked for."""
    logging.getLogger("keyop").setLevel(logging.CRITICAL)  # the workload fails on purpose
    place = Path(tempfile.mkdtemp(prefix="flips-", dir=arguments.dir))
    try:
        return list(_parts(arguments, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _parts(arguments: argparse.Namespace, place: Path) -> Iterator[Report]:
    room, seed, kept = Room(place / "made"), arguments.seed, arguments.keep
    if arguments.flips != 0 or arguments.processes:
        small = room.small()
    if arguments.flips != 0:
        yield flip_files("flips", small, place / "files", seed, arguments.flips, kept, arguments.flaw)
    if arguments.flaw:
        return
    if arguments.large or arguments.processes:
        large = room.large()
    if arguments.large:
        yield flip_files("flips large", [large], place / "files", seed, arguments.large, kept)
    if arguments.processes:
        yield flip_before_processes([*small, large], place, seed, arguments.processes, kept)
    if arguments.memory != 0:
        yield flip_memory(room.memory(), seed, arguments.memory, kept)
    if arguments.live != 0:
        yield flip_live(place / "live", seed, arguments.live)


def _count(text: str) -> int | None:
    return None if text == "all" else int(text.replace(",", ""))
