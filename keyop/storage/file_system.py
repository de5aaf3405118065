"""Bringing many files to the device at once.

A sync of one file waits for the device's cache to be flushed, also where nothing of it is dirty. For hundreds of files
one `syncfs` does that once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from keyop.storage import disk
from keyop.storage.directory import DataDirectory

# Up to so many files it is no use.
_FEW = 16
# Where `syncfs` brings all to the device and reports what fails. FUSE, for one, does not hear of it.
_TRUSTED = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"))
# Before this one it reported no error of writing (syncfs(2)).
_FIRST_KERNEL = (5, 8)


class FileSystem:
    """The file system of a data directory. Open it **before** the writes that `sync` is for.

    What fails to be written is reported to whoever had the file system open then.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._fd = os.open(directory.channels, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the descriptor up."""
        os.close(self._fd)

    def sync(self, paths: Collection[Path], each: Callable[[Path], None] | None = None) -> None:
        """Bring files and directories to the device; ``each`` syncs one of them. Raises `OSError`."""
        left = list(paths)
        if len(left) > _FEW and self._trusted() and self._sync_all():
            device = os.fstat(self._fd).st_dev
            # Somebody may have put a part of the directory elsewhere. And one file: syncing it flushes the device's
            # cache, which XFS leaves out where it had only to overwrite.
            left = [path for path in left if os.stat(path).st_dev != device] + [self._any_file(left)]
        sync_one = each or disk.sync_path
        for path in left:
            sync_one(path)

    def _trusted(self) -> bool:
        return _kernel() >= _FIRST_KERNEL and self._directory.file_system() in _TRUSTED

    def _sync_all(self) -> bool:
        try:
            import ctypes

            sync = ctypes.CDLL(None, use_errno=True).syncfs
        except (ImportError, AttributeError, OSError):
            return False
        if sync(self._fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(self._directory.path))
        return True

    @staticmethod
    def _any_file(paths: Collection[Path]) -> Path:
        return next((path for path in paths if path.suffix), next(iter(paths)))


def _kernel() -> tuple[int, ...]:
    """Version and patch level of Linux; nothing elsewhere."""
    system = os.uname()
    if system.sysname != "Linux":
        return ()
    numbers = system.release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
