"""Every file operation by which the writer changes a data directory, in one thin module.

A crash test can end the process at any of its named steps: ``KEYOP_CRASH_AT=frame.written:3`` kills it with SIGKILL
when it comes to that step for the third time. Steps cost a call of an empty function otherwise.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path

_COPY_BYTES = 1 << 20

# What a full or failing disk says: the writer waits and tries again, it refuses nothing for these.
WAIT_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS))


def _no_step(_name: str) -> None:
    pass


_seen: Counter[str] = Counter()


def _crash_step(name: str) -> None:
    wanted, _, count = os.environ["KEYOP_CRASH_AT"].partition(":")
    _seen[name] += 1
    if name == wanted and _seen[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


step = _crash_step if "KEYOP_CRASH_AT" in os.environ else _no_step


def open_file(path: Path | str, flags: int = os.O_RDWR, mode: int = 0o644) -> int:
    """Open a file, closed on exec."""
    return os.open(path, flags | os.O_CLOEXEC, mode)


def write_at(fd: int, data: bytes | memoryview, position: int) -> None:
    """Write all of ``data`` at ``position``: a short write is gone on with."""
    written = os.pwrite(fd, data, position)
    while written < len(data):
        data = memoryview(data)[written:]
        position += written
        written = os.pwrite(fd, data, position)


def size(fd: int) -> int:
    """The file's length in bytes. Moves the file position, which nobody here uses."""
    return os.lseek(fd, 0, os.SEEK_END)


def sync_data(fd: int) -> None:
    """The file's bytes, and its length, to the device."""
    os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)


def sync_path(path: Path | str) -> None:
    """A file's or a directory's contents to the device."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def truncate(fd: int, length: int) -> None:
    """Cut a file: only the torn rest of a last line is ever cut."""
    os.ftruncate(fd, length)


def fill_zeros(fd: int, start: int, end: int) -> None:
    """Write zeros, so that blocks are allocated and written: overwriting them later changes no metadata."""
    zeros = bytes(min(_COPY_BYTES, end - start))
    while start < end:
        start += os.pwrite(fd, zeros[: end - start], start)


def make_directory(path: Path) -> bool:
    """Make one directory; whether it was not there before."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def rename(source: Path, target: Path) -> None:
    """Give a file another name, replacing what had it."""
    os.replace(source, target)


def unlink(path: Path) -> None:
    """Remove a file that may be gone already."""
    path.unlink(missing_ok=True)
