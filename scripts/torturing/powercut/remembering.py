"""The FUSE side of a disk that remembers: one file that logs every write and every flush as they come.

It runs in a process of its own (``python -m torturing.powercut.remembering DIRECTORY``): a process that wrote to a file
system on this disk and served the disk as well would wait for itself.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from mfusepy import FUSE, FuseOSError, Operations  # type: ignore[import-untyped]

from torturing.powercut import system
from torturing.powercut.disk import ENTRY, FLUSH, MARK, NAME


class RememberingFile(Operations):  # type: ignore[misc]
    """One thread serves it: the order in the log is the order in which the kernel sent it."""

    use_ns = True

    def __init__(self, contents: Path, log: Path, mark: Path, mount: Path) -> None:
        """``contents`` is what stands on the disk now, ``mark`` says how many entries the log has."""
        self._mount = mount
        self._fd = os.open(contents, os.O_RDWR)
        self._size = os.fstat(self._fd).st_size
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
        with mark.open("r+b") as file:
            self._mark = memoryview(mmap.mmap(file.fileno(), MARK.size)).cast("Q")
        self._entries = 0

    def _remember(self, *parts: bytes) -> None:
        if os.writev(self._log, parts) != sum(map(len, parts)):
            raise FuseOSError(errno.ENOSPC)
        self._entries += 1
        # Before the kernel is answered: who hears that a write is done finds it counted.
        self._mark[0] = self._entries

    def init(self, path: str) -> None:
        """Keep the file system that will be mounted from this disk out of this process's mounts.

        If it were among them and all were killed, this process might be the last one that holds it. Then it would have
        to unmount it at its end, which takes a write to the disk that it serves no more.
        """
        system.leave_mounts()
        system.unmount(self._mount)

    def getattr(self, path: str, fh: object = None) -> dict[str, int]:
        """As FUSE asks for it."""
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path == f"/{NAME}":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self._size}
        raise FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: object) -> list[str]:
        """The one file."""
        return [".", "..", NAME]

    def open(self, path: str, info: Any) -> int:
        """Nothing is kept in the page cache: every write comes here at once and in its own shape."""
        info.direct_io = 1
        return 0

    def read(self, path: str, size: int, offset: int, info: object) -> bytes:
        """What was written last."""
        return os.pread(self._fd, size, offset)

    def write(self, path: str, data: bytes, offset: int, info: object) -> int:
        """Remember it, then do it."""
        self._remember(ENTRY.pack(time.monotonic_ns(), offset, len(data)), data)
        return os.pwrite(self._fd, data, offset)

    def fsync(self, path: str, datasync: int, info: object) -> int:
        """A flush of the loop device."""
        self._remember(ENTRY.pack(time.monotonic_ns(), 0, FLUSH))
        return 0


def serve(directory: Path) -> None:
    """Serve until it is unmounted."""
    mount = directory / "mount"
    file = RememberingFile(directory / "contents", directory / "log", directory / "mark", mount)
    FUSE(file, str(mount), raw_fi=True, nothreads=True, foreground=True, fsname="keyop-torture")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
