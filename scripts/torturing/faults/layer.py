"""A file system that passes everything on to a directory, fails on command, and knows what a power cut would leave.

Nothing is kept in the kernel's cache (direct I/O): the backing directory takes its place, `platter` the device's. Locks
are not among the operations, so the kernel handles `flock` itself.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mfusepy import Operations

from torturing.faults.platter import Directory, File
from torturing.faults.rules import Rulebook

_STATUS = ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
_TIMES = ("st_atime", "st_mtime", "st_ctime")
# What libfuse calls a file that is removed while somebody has it open.
_HIDDEN = ".fuse_hidden"
_WRITES = os.O_WRONLY | os.O_RDWR


def _is_hidden(path: str) -> bool:
    return PurePosixPath(path).name.startswith(_HIDDEN)


class _Open:
    """An open file."""

    __slots__ = ("fd", "file", "path")

    def __init__(self, fd: int, file: File, path: str) -> None:
        self.fd = fd
        self.file = file
        self.path = path


class Layer(Operations):  # type: ignore[misc]
    """The operations that libfuse calls, each in one of its threads."""

    use_ns = True

    def __init__(self, backing: Path, rules: Rulebook, mark: Path) -> None:
        """``mark`` is a file that holds the number of changes made so far, 64 bits, for those who note when they were
        told something."""
        self.rules = rules
        self.counts: Counter[str] = Counter()
        self._backing = str(backing)
        self._lock = threading.RLock()
        self._root = Directory()
        # By path, as it is now; the platter has its own idea of names.
        self._entries: dict[str, File | Directory] = {"/": self._root}
        self._open: dict[int, _Open] = {}
        self._changes = 0
        mark.write_bytes(bytes(8))
        with mark.open("r+b") as file:
            # Not with `struct.pack_into`, which zeroes first what others read.
            self._mark = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    # ---- names

    def _real(self, path: str) -> str:
        return self._backing + path

    def _changed(self, operation: str) -> None:
        self.counts[operation] += 1
        self._changes += 1
        self._mark[0] = self._changes

    def _judge(self, operations: tuple[str, ...], *paths: str) -> None:
        self.rules.judge(operations, *(path.lstrip("/") for path in paths)).check()

    # ---- reading

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """As `stat`."""
        self._judge(("stat",), path)
        status = os.lstat(self._real(path)) if fh is None else os.fstat(self._open[fh].fd)
        found: dict[str, Any] = {name: getattr(status, name) for name in _STATUS}
        found.update({name: getattr(status, f"{name}_ns") for name in _TIMES})
        return found

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """As `scandir`."""
        self._judge(("list",), path)
        with os.scandir(self._real(path)) as entries:
            found = [(entry.name, entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, number, is_directory in [(".", 0, True), ("..", 0, True), *found]:
            if not name.startswith(_HIDDEN):
                yield name, {"st_ino": number, "st_mode": 0o040000 if is_directory else 0o100000}, 0

    def statfs(self, path: str) -> dict[str, int]:
        """As `statvfs`."""
        status = os.statvfs(self._real(path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_") and name != "f_fsid"}

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """As `pread`."""
        self._judge(("read",), self._open[fh].path)
        return os.pread(self._open[fh].fd, size, offset)

    # ---- files

    def open(self, path: str, flags: int) -> int:
        """As `open` without O_CREAT."""
        writes = bool(flags & _WRITES)
        self._judge(("open", "open_to_write") if writes else ("open",), path)
        with self._lock:
            entry = self._entries[path]
            assert isinstance(entry, File)
            before = os.stat(self._real(path)).st_size
            # Where to append is told by the kernel, and what may be read by the layer's own look at lost bytes.
            fd = os.open(self._real(path), (flags & ~(os.O_APPEND | os.O_ACCMODE)) | os.O_RDWR | os.O_CLOEXEC)
            if flags & os.O_TRUNC:
                entry.truncated(before, 0)
                self._changed("truncate")
            return self._opened(fd, entry, path)

    def create(self, path: str, mode: int, flags: int) -> int:
        """As `open` with O_CREAT."""
        self._judge(("create",), path)
        with self._lock:
            fd = os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            entry = self._entries[path] = File()
            self._changed("create")
            return self._opened(fd, entry, path)

    def _opened(self, fd: int, file: File, path: str) -> int:
        self._open[fd] = _Open(fd, file, path)
        file.open_count += 1
        return fd

    def release(self, path: str, fh: int) -> int:
        """As `close`."""
        with self._lock:
            opened = self._open.pop(fh)
            opened.file.open_count -= 1
            os.close(fh)
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """As `pwrite`."""
        opened = self._open[fh]
        grows = offset + len(data) > os.fstat(fh).st_size
        verdict = self.rules.judge(("write", "extend") if grows else ("write",), opened.path.lstrip("/"))
        verdict.check()
        if verdict.short:
            data = data[: max(1, len(data) // 2)]
        with self._lock:
            written = os.pwrite(fh, data, offset)
            opened.file.wrote(offset, offset + written)
            self._changed("write")
        return written

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """As `truncate`."""
        longer = length > os.stat(self._real(path)).st_size
        self._judge(("truncate", "extend") if longer else ("truncate",), path)
        with self._lock:
            entry = self._entries[path]
            assert isinstance(entry, File)
            before = os.stat(self._real(path)).st_size
            os.truncate(self._real(path), length)
            entry.truncated(before, length)
            self._changed("truncate")
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """As `fsync`: what is dirty comes to the platter, or is dropped and never does."""
        opened = self._open[fh]
        verdict = self.rules.judge(("sync",), opened.path.lstrip("/"))
        with self._lock:
            if verdict.errno:
                if verdict.drop:
                    opened.file.dropped()
                verdict.check()
            opened.file.synced(lambda length, position: os.pread(fh, length, position))
            self._changed("sync")
        return 0

    # ---- directories

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        """As `fsync` of a directory: its names come to the platter."""
        self._judge(("sync_directory",), path)
        with self._lock:
            entry = self._entries[path]
            assert isinstance(entry, Directory)
            prefix = path if path == "/" else f"{path}/"
            entry.stored = {
                name: self._entries[prefix + name]
                for name in os.listdir(self._real(path))
                if not name.startswith(_HIDDEN)
            }
            self._changed("sync_directory")
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        """As `mkdir`."""
        self._judge(("mkdir",), path)
        with self._lock:
            os.mkdir(self._real(path), mode)
            self._entries[path] = Directory()
            self._changed("mkdir")
        return 0

    def rmdir(self, path: str) -> int:
        """As `rmdir`."""
        self._judge(("rmdir",), path)
        with self._lock:
            os.rmdir(self._real(path))
            del self._entries[path]
            self._changed("rmdir")
        return 0

    def unlink(self, path: str) -> int:
        """As `unlink`."""
        if not _is_hidden(path):
            self._judge(("unlink",), path)
        with self._lock:
            os.unlink(self._real(path))
            del self._entries[path]
            self._changed("unlink")
        return 0

    def rename(self, old: str, new: str) -> int:
        """As `rename`; to a hidden name it is libfuse's way to unlink an open file."""
        if not _is_hidden(new):
            self._judge(("rename",), old, new)
        elif self._entries.get(old) is not None:
            self._judge(("unlink",), old)
        with self._lock:
            os.rename(self._real(old), self._real(new))
            below = [path for path in self._entries if path == old or path.startswith(f"{old}/")]
            for path in below:
                self._entries[new + path[len(old) :]] = self._entries.pop(path)
            for opened in self._open.values():
                if opened.path == old or opened.path.startswith(f"{old}/"):
                    opened.path = new + opened.path[len(old) :]
            self._changed("rename")
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """As `chmod`."""
        self._judge(("attributes",), path)
        os.chmod(self._real(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """As `chown`."""
        self._judge(("attributes",), path)
        os.chown(self._real(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """As `utime`."""
        self._judge(("attributes",), path)
        if times is None:
            os.utime(self._real(path))
        else:
            os.utime(self._real(path), ns=times)
        return 0

    # ---- what no process may ask for

    def evict(self) -> int:
        """Drop the cache, as a kernel short of memory does: what a failed sync lost is gone; of how many files."""
        with self._lock:
            losing = [(path, entry) for path, entry in self._entries.items() if isinstance(entry, File)]
            losing = [(path, entry) for path, entry in losing if entry.losing]
            for path, entry in losing:
                fd = os.open(self._real(path), os.O_RDWR)
                try:
                    entry.evict(
                        lambda data, at, fd=fd: os.pwrite(fd, data, at),  # type: ignore[misc]
                        lambda length, fd=fd: os.ftruncate(fd, length),  # type: ignore[misc]
                        os.fstat(fd).st_size,
                    )
                finally:
                    os.close(fd)
            return len(losing)

    def cut(self, target: Path) -> int:
        """Write what a power cut would leave at this moment to a new directory; the number of changes until then."""
        with self._lock:
            self._root.write_to(target)
            return self._changes
