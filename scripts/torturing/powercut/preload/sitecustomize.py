"""Python imports this when it starts with this directory on its path: the workload's processes do, nobody else.

It notes at which moment of the disk's log the writer came to each of its named steps, and takes the sync out of the
journal for the control, which has to find losses.
"""

from __future__ import annotations

import mmap
import os
import struct


def _note_steps(path: str, mark: str) -> None:
    from keyop.storage import disk

    with open(mark, "rb") as file:
        length = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(name: str) -> None:
        os.write(notes, f"{name} {struct.unpack('<Q', length[:])[0]}\n".encode())

    fill_zeros = disk.fill_zeros

    def noted_fill(fd: int, start: int, end: int) -> None:
        note("journal.filling")
        fill_zeros(fd, start, end)
        note("journal.filled")

    disk.step = note
    disk.fill_zeros = noted_fill


def _take_the_sync_out() -> None:
    from keyop.storage import disk

    disk.sync_data = lambda fd: None


if "TORTURE_STEPS" in os.environ:
    _note_steps(os.environ["TORTURE_STEPS"], os.environ["TORTURE_MARK"])
if "TORTURE_NO_SYNC" in os.environ:
    _take_the_sync_out()
