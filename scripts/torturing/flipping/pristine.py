"""A directory before anything was done to it, and the way back to that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


class Pristine:
    """The bytes of every file of a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
        self._directories = {str(path) for path in directory.rglob("*") if path.is_dir()}

    def flip(self, path: str, bit: int) -> None:
        """Turn one bit of a file over."""
        at, mask = bit >> 3, 1 << (bit & 7)
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, bytes([self.files[path][at] ^ mask]), at)
        finally:
            os.close(fd)

    def restore(self, paths: Iterable[str]) -> None:
        """Bring these back to what they were."""
        for path in paths:
            data = self.files.get(path)
            if data is not None:
                self._write(path, data)
            elif path not in self._directories:
                _remove(path)

    @staticmethod
    def _write(path: str, data: bytes) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            there = os.pread(fd, len(data) + 1, 0)
            if there != data:
                os.pwrite(fd, data, 0)
                os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def differences(self) -> list[str]:
        """The files that are not as they were: after `restore` there must be none."""
        now = {str(path) for path in self.directory.rglob("*") if path.is_file()}
        return sorted(now ^ self.files.keys()) + [
            path for path, data in self.files.items() if path in now and Path(path).read_bytes() != data
        ]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(path, ignore_errors=True)
