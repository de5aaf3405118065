"""Python imports this when it starts with this directory on its path: the workload's processes do, nobody else.

It notes at which moment of the disk's log the writer came to each of its named steps, and leaves out a sync for the
controls, which have to find losses.
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


def _leave_out(flaw: str) -> None:
    """The sync of the journal's files, or that of segments, is not done."""
    from keyop.storage import disk

    sync_data = disk.sync_data
    left_out = {"journal": ".journal", "segments": ".jsonl"}[flaw]

    def sync_some(fd: int) -> None:
        if not os.readlink(f"/proc/self/fd/{fd}").endswith(left_out):
            sync_data(fd)

    disk.sync_data = sync_some


if "TORTURE_STEPS" in os.environ:
    _note_steps(os.environ["TORTURE_STEPS"], os.environ["TORTURE_MARK"])
if "TORTURE_FLAW" in os.environ:
    _leave_out(os.environ["TORTURE_FLAW"])
