"""The append side of one channel: where it ends, which segment is active, what the round under way adds.

A round first **plans** (offsets are given, nothing is written), then the journal is written, then the plan is
**applied**. Until then `abandon` drops it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from keyop import entry
from keyop.storage import disk
from keyop.storage.segments import list_segments, segment_name
from keyop.storage.torn import cut_torn_line


class ForeignWrite(Exception):
    """A segment is longer than it should be: another program appended to it. Nothing is overwritten."""


class SegmentFile:
    """An open segment. It stays open while it holds bytes that no checkpoint has synced."""

    __slots__ = ("dirty", "fd", "path", "start")

    def __init__(self, path: Path, start: int, fd: int) -> None:
        self.path = path
        self.start = start
        self.fd = fd
        # In how many sets of segments that wait for a checkpoint it stands.
        self.dirty = 0

    def close(self) -> None:
        """Close the descriptor; the caller has synced it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Chunk:
    """Bytes that one frame entry puts at one place in one segment."""

    __slots__ = ("data", "offset", "parts", "segment_start", "spill", "spill_name")

    def __init__(self, segment_start: int, offset: int) -> None:
        self.segment_start = segment_start
        self.offset = offset
        self.parts: list[bytes] = []
        self.data = b""
        self.spill = b""
        self.spill_name = b""


class ChannelLog:
    """One channel as the writer appends to it."""

    __slots__ = (
        "active",
        "board_place",
        "chunks",
        "directory",
        "end",
        "followers",
        "name",
        "planned_end",
        "planned_start",
        "records",
        "roll_bytes",
        "used",
    )

    def __init__(self, name: bytes, directory: Path, roll_bytes: int) -> None:
        self.name = name
        self.directory = directory
        self.roll_bytes = roll_bytes
        self.active: SegmentFile | None = None
        self.end = 0
        self.records = 0
        self.board_place = -1
        self.chunks: list[Chunk] = []
        self.planned_end = 0
        self.planned_start = 0
        # The ports that are woken when it grows; storage does not know what they are.
        self.followers: set[Any] = set()
        self.used = 0

    # ---- opening

    def open(self) -> list[Path]:
        """Find the end, making directory and first segment where there are none, and cut a torn last line.

        Returns what was made in directories that a checkpoint has to sync. Raises `OSError`.
        """
        made = []
        if disk.make_directory(self.directory):
            made = [self.directory.parent, self.directory]
        segments, _foreign = list_segments(self.directory)
        start = segments[-1].start if segments else 0
        path = segments[-1].path if segments else self.directory / segment_name(0)
        if not segments:
            made.append(self.directory)
        fd = disk.open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            self.end = start + cut_torn_line(fd)
        except OSError:
            os.close(fd)
            raise
        self.active = SegmentFile(path, start, fd)
        self.planned_end = self.end
        self.planned_start = start
        return made

    def reopen(self) -> None:
        """Open the active segment again after its descriptor was given up. Raises `OSError`."""
        assert self.active is not None
        if self.active.fd < 0:
            self.active.fd = disk.open_file(self.active.path, os.O_RDWR)

    # ---- planning

    def plan(self, lines: bytes) -> None:
        """Give whole lines their place behind what is planned already, rolling where the segment would overflow."""
        if self.planned_end + len(lines) - self.planned_start > self.roll_bytes > 0:
            for piece in self._pieces(lines):
                self._chunk_for(len(piece)).parts.append(piece)
                self.planned_end += len(piece)
            return
        chunks = self.chunks
        if not chunks or chunks[-1].spill:
            chunks.append(Chunk(self.planned_start, self.planned_end))
        chunks[-1].parts.append(lines)
        self.planned_end += len(lines)

    def plan_spilled(self, name: bytes, at: int, lines: bytes) -> None:
        """The same for lines that stand in a spill file at a position: the frame names them instead of holding them."""
        for piece in self._pieces(lines):
            chunk = self._chunk_for(len(piece), fresh=True)
            chunk.parts.append(piece)
            chunk.spill_name = name
            chunk.spill = entry.SPILL_REFERENCE.pack(at, len(piece), crc32(piece))
            self.planned_end += len(piece)
            at += len(piece)

    def _chunk_for(self, length: int, *, fresh: bool = False) -> Chunk:
        used = self.planned_end - self.planned_start
        if used and used + length > self.roll_bytes > 0:
            self.planned_start = self.planned_end
            fresh = True
        if fresh or not self.chunks or self.chunks[-1].spill:
            self.chunks.append(Chunk(self.planned_start, self.planned_end))
        return self.chunks[-1]

    def _pieces(self, lines: bytes) -> Iterator[bytes]:
        """Cut at line borders, each piece within what its segment has left; only a single line may be over."""
        if self.roll_bytes <= 0:
            yield lines
            return
        at = 0
        while at < len(lines):
            room = self.roll_bytes - (self.planned_end - self.planned_start)
            cut = lines.rfind(b"\n", at, at + room) + 1 if room > 0 else 0
            if not cut and self.planned_end > self.planned_start:
                cut = lines.rfind(b"\n", at, at + self.roll_bytes) + 1
            if not cut:
                cut = lines.index(b"\n", at) + 1
            yield lines[at:cut]
            at = cut

    @property
    def rolls(self) -> bool:
        """Whether the plan begins a segment."""
        assert self.active is not None
        return self.planned_start != self.active.start

    def prepare(self) -> list[Path]:
        """Make the segments that the plan begins, while the round can still wait. Raises `OSError`."""
        made = []
        assert self.active is not None
        for start in {chunk.segment_start for chunk in self.chunks} - {self.active.start}:
            path = self.directory / segment_name(start)
            if not path.exists():
                os.close(disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                disk.step("segment.created")
                made.append(self.directory)
        return made

    def frame_entries(self) -> Iterator[bytes]:
        """The plan as entries of a frame."""
        for chunk in self.chunks:
            chunk.data = chunk.parts[0] if len(chunk.parts) == 1 else b"".join(chunk.parts)
            flags = entry.STARTS_SEGMENT if chunk.offset == chunk.segment_start and chunk.offset else 0
            if chunk.spill:
                yield entry.encode(
                    entry.SPILLED, self.name, chunk.spill_name, flags=flags, value=chunk.offset, data=chunk.spill
                )
            else:
                yield entry.encode(entry.APPEND, self.name, flags=flags, value=chunk.offset, data=chunk.data)

    # ---- applying

    def apply(self) -> list[SegmentFile]:
        """Write the plan to the segments; return the files that now hold unsynced bytes.

        May be called again after an `OSError`: it goes on with the chunk that failed. Raises `ForeignWrite`.
        """
        dirty = []
        while self.chunks:
            chunk = self.chunks[0]
            segment = self._segment(chunk.segment_start)
            at = chunk.offset - segment.start
            found = disk.size(segment.fd)
            # A part of this very chunk may stand there already, from a try that ran out of space.
            if found != at and not (at < found <= at + len(chunk.data) and self._is_ours(segment, chunk, found - at)):
                raise ForeignWrite(
                    f"{segment.path}: {found} bytes long instead of {at}; another program writes to this directory"
                )
            disk.write_at(segment.fd, chunk.data, at)
            disk.step("segment.written")
            dirty.append(segment)
            self.end = chunk.offset + len(chunk.data)
            self.records += chunk.data.count(b"\n")
            del self.chunks[0]
        return dirty

    @staticmethod
    def _is_ours(segment: SegmentFile, chunk: Chunk, length: int) -> bool:
        return os.pread(segment.fd, length, chunk.offset - segment.start) == chunk.data[:length]

    def _segment(self, start: int) -> SegmentFile:
        assert self.active is not None
        if self.active.start != start:
            path = self.directory / segment_name(start)
            self.active = SegmentFile(path, start, disk.open_file(path, os.O_RDWR))
            disk.step("segment.rolled")
        elif self.active.fd < 0:
            self.reopen()
        return self.active

    def abandon(self) -> None:
        """Drop what is planned and not applied."""
        self.chunks.clear()
        self.planned_end = self.end
        self.planned_start = self.active.start if self.active else 0
