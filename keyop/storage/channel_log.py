"""The append side of one channel: where it ends, which segment is active, what the round under way adds.

A round first **plans** (offsets are given, nothing is written), then the journal is written, then the plan is
**applied**.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from keyop.protocol import entry
from keyop.protocol.entry import APPEND, ENTRY, STARTS_SEGMENT
from keyop.storage import disk
from keyop.storage.segments import list_segments, segment_name
from keyop.storage.torn import Cut, cut_torn_end, drop_segments_ahead


class ForeignWrite(Exception):
    """A segment is longer than it should be: another program appended to it. Nothing is overwritten."""


class Descriptors:
    """How many segments are open: there are more channels than a process may have descriptors."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0


class SegmentFile:
    """A segment that is appended to. It stays open while it holds bytes that no checkpoint has synced."""

    __slots__ = ("_descriptors", "dirty", "fd", "length", "path", "start")

    def __init__(self, path: Path, start: int, descriptors: Descriptors, flags: int = os.O_RDWR) -> None:
        """Open the file. Raises `OSError`."""
        self.path = path
        self.start = start
        self._descriptors = descriptors
        self.fd = disk.open_file(path, flags)
        descriptors.open += 1
        # In how many sets of segments that wait for a checkpoint it stands.
        self.dirty = 0
        # Up to where it is ours, what is being written included: nothing behind that is ever written again.
        self.length = 0

    def reopen(self) -> None:
        """Open it again after its descriptor was given up. Raises `OSError`."""
        self.fd = disk.open_file(self.path, os.O_RDWR)
        self._descriptors.open += 1

    def close(self) -> None:
        """Close the descriptor; the caller has synced it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._descriptors.open -= 1


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
        "_descriptors",
        "active",
        "board_place",
        "chunks",
        "cuts",
        "directory",
        "end",
        "followers",
        "name",
        "names_synced",
        "planned_end",
        "planned_start",
        "records",
        "roll_bytes",
        "rolls",
        "used",
    )

    def __init__(self, name: bytes, directory: Path, roll_bytes: int, descriptors: Descriptors | None = None) -> None:
        self.name = name
        self.directory = directory
        self._descriptors = descriptors or Descriptors()
        self.roll_bytes = roll_bytes
        self.active: SegmentFile | None = None
        self.end = 0
        # What was cut when it was opened.
        self.cuts: list[Cut] = []
        self.records = 0
        self.board_place = -1
        self.chunks: list[Chunk] = []
        self.planned_end = 0
        self.planned_start = 0
        # Whether the names of the segments that were there when it was opened are on the device for certain.
        self.names_synced = True
        # Whether the plan begins a segment that `prepare` has to make.
        self.rolls = False
        # The ports that are woken when it grows; storage does not know what they are.
        self.followers: set[Any] = set()
        self.used = 0

    # ---- opening

    def open(self, furthest: Callable[[], int] = lambda: 0) -> list[Path]:
        """Find the end, making directory and first segment where there are none, and cut a torn last line.

        ``furthest`` tells the greatest offset that a subscriber has. Returns the directories that a checkpoint has to
        sync: names were made in them, now or by somebody who did not come to the end of it. Raises `OSError`.
        """
        disk.make_directory(self.directory)
        segments, _foreign = list_segments(self.directory)
        self.cuts = cut_torn_end(segments)
        for cut in self.cuts:
            # Before anything is appended: a power cut may leave the old bytes and some of the new ones, and what they
            # make together could pass for another program's line.
            disk.sync_path(cut.path)
        unsynced: list[Path] = []
        if drop_segments_ahead(segments, furthest):
            # Before anything is appended where they began: after a power cut they would stand in the middle of it.
            disk.sync_path(self.directory)
        if not segments or not segments[-1].path.stat().st_size:
            # A name that was synced with nothing behind it is rare, and this sync costs no more than that.
            unsynced = [self.directory.parent, self.directory]
        self.names_synced = not unsynced
        start = segments[-1].start if segments else 0
        path = segments[-1].path if segments else self.directory / segment_name(0)
        self.active = SegmentFile(path, start, self._descriptors, os.O_RDWR | os.O_CREAT)
        self.end = self.planned_end = start + disk.size(self.active.fd)
        self.planned_start = start
        return unsynced

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
            self.rolls = fresh = True
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

    def prepare(self) -> None:
        """Make the segments that the plan begins, while the round can still wait.

        Their names are on the device before any frame speaks of them, and that of the first segment before them: if a
        power cut took the name of an earlier segment and left that of a later one, recovery would take the earlier for
        removed on purpose.

        Raises `OSError`, and `ForeignWrite` where one of them would begin in the middle of another program's lines.
        """
        assert self.active is not None
        starts = sorted({chunk.segment_start for chunk in self.chunks} - {self.active.start})
        if starts:
            self._look_at_length(self.active)
            if not self.names_synced:
                disk.sync_path(self.directory)
                self.names_synced = True
        for start in starts:
            path = self.directory / segment_name(start)
            if not path.exists():
                os.close(disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                disk.step("segment.created")
        if starts:
            disk.sync_path(self.directory)
        self.rolls = False

    def frame_entries(self) -> list[bytes]:
        """The plan as entries of a frame."""
        entries = []
        name = self.name
        for chunk in self.chunks:
            parts, offset = chunk.parts, chunk.offset
            chunk.data = data = parts[0] if len(parts) == 1 else b"".join(parts)
            flags = STARTS_SEGMENT if offset == chunk.segment_start and offset else 0
            if chunk.spill:
                entries.append(
                    entry.encode(entry.SPILLED, name, chunk.spill_name, flags=flags, value=offset, data=chunk.spill)
                )
            else:
                entries.append(ENTRY.pack(APPEND, len(name), 0, flags, len(data), offset) + name + data)
        return entries

    # ---- applying

    def apply(self, dirty: set[SegmentFile]) -> None:
        """Write the plan to the segments; ``dirty`` gets every file that is about to hold unsynced bytes.

        May be called again after an `OSError`: it goes on with the chunk that failed. Raises `ForeignWrite`.
        """
        while self.chunks:
            chunk = self.chunks[0]
            segment = self._segment(chunk.segment_start)
            data = chunk.data
            at = chunk.offset - segment.start
            found = disk.size(segment.fd)
            # A part of this very chunk may stand there already, from a try that ran out of space.
            if found != at and not (at < found <= at + len(data) and self._is_ours(segment, chunk, found - at)):
                raise ForeignWrite(
                    f"{segment.path}: {found} bytes long instead of {at}; another program writes to this directory"
                )
            segment.length = at + len(data)
            if segment not in dirty:
                dirty.add(segment)
                segment.dirty += 1
            disk.write_at(segment.fd, data, at)
            disk.step("segment.written")
            self.end = chunk.offset + len(data)
            self.records += data.count(b"\n")
            del self.chunks[0]

    @staticmethod
    def _is_ours(segment: SegmentFile, chunk: Chunk, length: int) -> bool:
        return os.pread(segment.fd, length, chunk.offset - segment.start) == chunk.data[:length]

    def _look_at_length(self, left: SegmentFile) -> None:
        """Nobody looks at a segment again that is left behind."""
        found, at = left.path.stat().st_size, self.end - left.start
        if found != at:
            raise ForeignWrite(
                f"{left.path}: {found} bytes long instead of {at}; another program writes to this directory"
            )

    def _segment(self, start: int) -> SegmentFile:
        assert self.active is not None
        if self.active.start != start:
            self._look_at_length(self.active)
            left, self.active = self.active, SegmentFile(self.directory / segment_name(start), start, self._descriptors)
            if not left.dirty:
                left.close()  # else the checkpoint does it
            disk.step("segment.rolled")
        elif self.active.fd < 0:
            self.active.reopen()
        return self.active
