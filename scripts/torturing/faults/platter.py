"""What of a file and of a directory is on the device, and what stands in the kernel's cache alone.

The strictest disk that POSIX allows: without a sync of the file nothing of its bytes is there after a power cut, and
without a sync of the directory none of the names made since.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torturing.faults.spans import Spans

Read = Callable[[int, int], bytes]
"""Bytes of the file as its readers see it now: length, position."""


class File:
    """A file as the device has it, and which bytes of the cache it has not."""

    def __init__(self) -> None:
        self.stored = bytearray()
        # Written since the last sync.
        self._dirty = Spans()
        # Written, then dropped by a sync that failed: clean for the kernel, so that no later sync writes them. They are
        # read from the cache until that is dropped.
        self._lost = Spans()
        self._cut_to: int | None = None
        self.open_count = 0

    @property
    def losing(self) -> bool:
        """Whether the cache holds bytes that no sync will write."""
        return bool(self._lost)

    def wrote(self, start: int, end: int) -> None:
        """Bytes were written into the cache."""
        self._dirty.add(start, end)
        self._lost.remove(start, end)

    def truncated(self, before: int, length: int) -> None:
        """The length was set."""
        if length > before:
            self.wrote(before, length)
            return
        self._dirty.cut(length)
        self._lost.cut(length)
        self._cut_to = length if self._cut_to is None else min(self._cut_to, length)

    def synced(self, read: Read) -> None:
        """A sync succeeded: what is dirty is on the device. What an earlier one dropped is not."""
        if self._cut_to is not None:
            del self.stored[self._cut_to :]
            self._cut_to = None
        for start, end in self._dirty:
            if len(self.stored) < end:
                self.stored.extend(bytes(end - len(self.stored)))
            self.stored[start:end] = read(end - start, start)
        self._dirty.clear()

    def dropped(self) -> None:
        """A sync failed: the kernel marks the pages clean without having written them."""
        self._lost.update(self._dirty)
        self._dirty.clear()

    def evict(self, write: Callable[[bytes, int], object], truncate: Callable[[int], None], length: int) -> None:
        """The cache is dropped: what was lost reads as the device has it. The length of an open file stays."""
        for start, end in self._lost:
            write(bytes(self.stored[start:end]).ljust(end - start, b"\0"), start)
        self._lost.clear()
        there = max(len(self.stored), self._dirty.end)
        if not self.open_count and there < length:
            truncate(there)


class Directory:
    """A directory as the device has it."""

    def __init__(self) -> None:
        self.stored: dict[str, File | Directory] = {}

    def write_to(self, target: Path) -> None:
        """Make a directory that holds what a power cut would leave of this one."""
        target.mkdir()
        for name, entry in self.stored.items():
            if isinstance(entry, Directory):
                entry.write_to(target / name)
            else:
                (target / name).write_bytes(entry.stored)
