"""A disk that remembers: one file, served over FUSE, that logs every write and every flush as they come.

It runs in a process of its own (``python -m torturing.powercut.disk``): a process that wrote to a file system on this
disk and served the disk as well would wait for itself.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from struct import Struct
from typing import Any, Self

from torturing.powercut import system

# mfusepy has no types.
FUSE: Any
Operations: Any
try:
    from mfusepy import FUSE, FuseOSError, Operations
except (ImportError, OSError):  # without libfuse it cannot be imported
    FUSE, FuseOSError, Operations = None, OSError, object

ENTRY = Struct("<QQI")
"""Monotonic time in nanoseconds, offset, length, then the bytes of a write; of a flush the length is `FLUSH`."""
FLUSH = 0xFFFF_FFFF
MARK = Struct("<Q")

_NAME = "disk"
_DEADLINE_S = 10.0


class _RememberingFile(Operations):
    """The FUSE side. One thread: the order in the log is the order in which the kernel sent it."""

    use_ns = True

    def __init__(self, contents: Path, log: Path, mark: Path) -> None:
        self._fd = os.open(contents, os.O_RDWR)
        self._size = os.fstat(self._fd).st_size
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
        with mark.open("r+b") as file:
            self._mark = memoryview(mmap.mmap(file.fileno(), MARK.size)).cast("Q")
        self._entries = 0

    def _remember(self, *parts: bytes) -> None:
        length = sum(map(len, parts))
        if os.writev(self._log, parts) != length:
            raise FuseOSError(errno.ENOSPC)
        self._entries += 1
        self._mark[0] = self._entries

    def getattr(self, path: str, fh: object = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path == f"/{_NAME}":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self._size}
        raise FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: object) -> list[str]:
        return [".", "..", _NAME]

    def open(self, path: str, info: Any) -> int:
        # Nothing is kept in the page cache: every write comes here at once and in its own shape.
        info.direct_io = 1
        return 0

    def read(self, path: str, size: int, offset: int, info: object) -> bytes:
        return os.pread(self._fd, size, offset)

    def write(self, path: str, data: bytes, offset: int, info: object) -> int:
        self._remember(ENTRY.pack(time.monotonic_ns(), offset, len(data)), data)
        return os.pwrite(self._fd, data, offset)

    def fsync(self, path: str, datasync: int, info: object) -> int:
        self._remember(ENTRY.pack(time.monotonic_ns(), 0, FLUSH))
        return 0


def _serve(directory: Path) -> None:
    operations = _RememberingFile(directory / "contents", directory / "log", directory / "mark")
    FUSE(
        operations,
        str(directory / "mount"),
        raw_fi=True,
        nothreads=True,
        foreground=True,
        fsname="keyop-torture",
    )


class Disk:
    """The rig's side: the server's process, the served file, its log and its mark. Left, all of it is taken down."""

    def __init__(self, directory: Path, first_contents: Path) -> None:
        """Serve a copy of ``first_contents`` below ``directory``, which should be in memory (a tmpfs)."""
        self._directory = directory
        (directory / "mount").mkdir()
        (directory / "contents").write_bytes(b"")
        system.copy_sparse(first_contents, directory / "contents")
        self.mark = directory / "mark"
        self.mark.write_bytes(MARK.pack(0))
        self.log = directory / "log"
        self.path = directory / "mount" / _NAME
        self._server = subprocess.Popen(
            [sys.executable, "-m", "torturing.powercut.disk", str(directory)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            system.wait_until(self._is_served, _DEADLINE_S, "the FUSE server did not come up")
        except BaseException:
            self.close()
            raise

    def _is_served(self) -> bool:
        if self._server.poll() is not None:
            raise system.RigError(f"the FUSE server ended ({self._server.returncode})")
        return self.path.exists()

    def length(self) -> int:
        """How many entries the log has now."""
        return int(MARK.unpack(self.mark.read_bytes())[0])

    def close(self) -> None:
        """Unmount and end the server. What was mounted on the disk has to be unmounted before."""
        mount = self._directory / "mount"
        if os.path.ismount(mount):
            system.unmount(mount)
        try:
            self._server.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
