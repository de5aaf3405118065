"""The audit log of the federation: lines appended to ``audit/audit.jsonl``, rotated by size, never synced.

It says who came and what passed, and is the first thing that is given up where a disk cannot keep up. Messages do not
wait for it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from keyop.storage import disk

NAME = "audit.jsonl"


class AuditFile:
    """The live file and its rotated predecessors ``.1`` (the newest) to ``.N``."""

    def __init__(self, directory: Path, max_size_bytes: int, max_files: int) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._max_size_bytes = max_size_bytes
        self._max_files = max_files
        self._fd = -1
        self._size = 0

    def append(self, lines: bytes) -> None:
        """Append whole lines. Raises `OSError`; of the lines nothing stands then."""
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:
            self.close()  # somebody removed it
        if self._fd < 0:
            self._fd = disk.open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._size = disk.size(self._fd)
        written = os.write(self._fd, lines)
        if written < len(lines):
            # A full disk took a part: half a line would spoil the next one.
            disk.truncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += written

    def rotate_if_full(self) -> None:
        """Begin a new file if the live one has reached its size. Raises `OSError`; the live one is written on then."""
        if self._size < self._max_size_bytes:
            return
        self.close()
        for number in self._rotated(beyond=self._max_files):
            disk.unlink(self._name(number))
        for number in self._rotated():
            disk.rename(self._name(number), self._name(number + 1))
        disk.rename(self._path, self._name(1))
        self._size = 0

    def _rotated(self, beyond: int = 0) -> list[int]:
        """Numbers of the rotated files that there are, from the greatest down; those that would pass ``beyond``."""
        numbers = []
        for name in os.listdir(self._directory):
            stem, _, suffix = name.rpartition(".")
            if stem == NAME and suffix.isascii() and suffix.isdigit() and str(int(suffix)) == suffix:
                numbers.append(int(suffix))
        return sorted((number for number in numbers if number >= max(1, beyond)), reverse=True)

    def _name(self, number: int) -> Path:
        return self._directory / f"{NAME}.{number}"

    def close(self) -> None:
        """Close the live file; the next line opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
