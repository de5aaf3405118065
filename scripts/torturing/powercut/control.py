"""The control: what the rig has to find, or it would find nothing.

A program that appends lines and syncs each loses none; without the sync it loses many. keyop without the sync of its
journal loses messages, too.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from torturing.findings import Report, Violation
from torturing.powercut import points, system
from torturing.powercut.checkup import Before, check_image
from torturing.powercut.disk import Disk
from torturing.powercut.image import Images, Recording, Write
from torturing.powercut.mount import FileSystem, make_image, mounted
from torturing.powercut.room import in_a_room
from torturing.powercut.stage import record
from torturing.workload import Plan

APPENDS = 600
# So often a program syncs that does not care; else the log of its disk would not grow at all.
_NOW_AND_THEN = 20
_TIMEOUT_S = 120.0


def control(kind: FileSystem, stage: Path, dice: random.Random, report: Report, images: int = 10) -> str:
    """Run all three, and report where the rig is blind; a sentence for the report.

    Raises `RigError`.
    """
    seed = dice.randrange(1 << 32)
    synced = in_a_room(functools.partial(_appends, kind, stage, seed, images, synced=True), _TIMEOUT_S)
    unsynced = in_a_room(functools.partial(_appends, kind, stage, seed, images, synced=False), _TIMEOUT_S)
    without = in_a_room(functools.partial(_keyop_without_sync, kind, stage, seed, images), _TIMEOUT_S)
    if synced:
        report.add([Violation("rig", f"{synced} of {images} images lost lines that were appended and synced")], seed)
    if unsynced < images // 2:
        report.add([Violation("blind", f"only {unsynced} of {images} images lost lines that were never synced")], seed)
    if not without:
        report.add([Violation("blind", f"none of {images} images of keyop without its sync lost anything")], seed)
    return (
        f"control: images with losses: append and fdatasync {synced} of {images}, append alone {unsynced} of {images}, "
        f"keyop with its sync taken out {without} of {images}"
    )


def _appends(kind: FileSystem, stage: Path, seed: int, count: int, *, synced: bool) -> int:
    """How many of so many images have lost a line."""
    system.mount("tmpfs", stage, "tmpfs")
    make_image(kind, stage / "first")
    marks: list[int] = []
    with Disk(stage / "disk", stage / "first") as disk, mounted(kind, disk.path, stage / "fs", direct=True):
        _append(stage / "fs", synced, disk.length, marks)
    recording = Recording(disk.log)
    dice = random.Random(seed)
    images = Images(recording, stage / "first")
    losses = 0
    for cut in points.choose(recording, [], marks[0], count, dice, end=marks[-1]):
        survivors = cut.survival.of(images.tail(cut.point), kind.superblocks)
        lines = in_a_room(functools.partial(_lines, kind, stage, images, survivors), _TIMEOUT_S)
        wanted = sum(mark <= cut.point for mark in marks)
        losses += any(number not in lines for number in range(wanted))
    return losses


def _append(place: Path, synced: bool, length: Callable[[], int], marks: list[int]) -> None:
    fd = os.open(place / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    directory = os.open(place, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.fsync(directory)
        for number in range(APPENDS):
            os.write(fd, b"%08d\n" % number)
            if synced or number % _NOW_AND_THEN == 0:
                os.fdatasync(fd)
            marks.append(length())
    finally:
        os.close(fd)
        os.close(directory)


def _lines(kind: FileSystem, stage: Path, images: Images, survivors: list[Write]) -> set[int]:
    images.save(survivors, stage / "cut")
    with mounted(kind, stage / "cut", stage / "after"):
        path = stage / "after" / "lines"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    return {int(line) for line in lines if len(line) == 8 and line.isdigit()}


def _keyop_without_sync(kind: FileSystem, stage: Path, seed: int, count: int) -> int:
    """How many of so many images have a violation."""
    system.mount("tmpfs", stage, "tmpfs")
    dice = random.Random(seed)
    plan = Plan()
    recorded = record(kind, stage / "work", plan, 1.5, dice, flaw="journal")
    images = Images(recorded.recording, recorded.first_contents)
    found = 0
    for cut in points.choose(recorded.recording, [], recorded.begin, count, dice):
        tail = images.tail(cut.point)
        place = stage / f"cut-{cut.point}-{cut.survival.seed}"
        place.mkdir()

        def work(cut: points.Cut = cut, tail: list[Write] = tail, place: Path = place) -> bool:
            images.save(cut.survival.of(tail, kind.superblocks), place / "image")
            before = Before(recorded.notes, plan, cut.point, 0, drained=False)
            return bool(check_image(kind, place / "image", before).violations)

        found += in_a_room(work, _TIMEOUT_S)
        shutil.rmtree(place)
    return found
