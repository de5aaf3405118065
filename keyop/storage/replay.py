"""Writing one channel again from the journal: each line at its place, but behind whole lines that are not ours."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from keyop.storage import disk
from keyop.storage.segments import Segment, behind_newline, list_segments, segment_name
from keyop.storage.torn import cut_torn_end, drop_segments_ahead

if TYPE_CHECKING:
    from keyop.storage.recovery import Recovered

# A line of the same length that differs from the journal's in no more bytes than this is damage, not another program's.
_DAMAGE_BYTES = 8
_ENVELOPE_BEGINS = b'{"v":'


class Run:
    """Bytes that belong at one place of a channel, contiguous over frames."""

    __slots__ = ("data", "offset", "starts_segment")

    def __init__(self, offset: int, data: bytes, starts_segment: bool) -> None:
        self.offset = offset
        self.data = bytearray(data)
        self.starts_segment = starts_segment


class ChannelReplay:
    """Replays one channel."""

    def __init__(self, directory: Path, channel: bytes, result: Recovered) -> None:
        self._directory = directory
        self._channel = channel
        self._result = result
        self._shift = 0
        self._segments: list[Segment] = list_segments(directory)[0]
        if not self._segments:
            disk.make_directory(directory)
        # Also what is there: the writer that made these names was perhaps killed before it had synced them.
        result.touched.update((directory, directory.parent))

    def replay(self, runs: list[Run]) -> None:
        """Bring all runs to their places, then cut the torn rest of the last line."""
        self._own_lines = {hash(line) for run in runs for line in bytes(run.data).split(b"\n") if line}
        for run in runs:
            data = self._not_removed(run)
            if data:
                offset = run.offset + len(run.data) - len(data)
                starts_segment = run.starts_segment and offset == run.offset and not self._shift
                self._place(data, offset + self._shift, starts_segment)
        if self._segments:
            self._cut_torn_end()

    def _not_removed(self, run: Run) -> bytes:
        """What of a run does not lie below the first segment: that was removed since, by another program."""
        data = bytes(run.data)
        below = self._segments[0].start - run.offset if self._segments else 0
        if below <= 0:
            return data
        removed = data.find(b"\n", below - 1) + 1 if below <= len(data) else len(data)
        self._result.notes.append(
            f"{self._directory}: {removed} bytes at {run.offset} are not restored, their segment was removed meanwhile"
        )
        return data[removed:]

    def _place(self, data: bytes, offset: int, starts_segment: bool) -> None:
        while data:
            segment = self._segment_for(offset, starts_segment and not self._is_overrun(offset, data))
            fd = disk.open_file(segment.path, os.O_RDWR)
            try:
                placed, following = self._place_in(segment, fd, data, offset)
            finally:
                os.close(fd)
            self._result.touched.add(segment.path)
            self._shift += following - (offset + placed)
            data, offset, starts_segment = data[placed:], following, False

    def _place_in(self, segment: Segment, fd: int, data: bytes, offset: int) -> tuple[int, int]:
        """Write in one segment what has its place there; how much that was, and the offset of what comes next."""
        at = offset - segment.start
        there = os.pread(fd, len(data), at)
        foreign = None if data.startswith(there) else self._foreign_run(fd, at, data)
        if foreign is None:
            # Also where it stands there already: that is memory, a failing disk may have dropped it.
            disk.write_at(fd, data, at)
            disk.step("recovery.written")
            return len(data), offset + len(data)
        foreign_at, length = foreign
        self._report_foreign(segment, foreign_at, length)
        cut = data.rfind(b"\n", 0, max(0, foreign_at - at)) + 1
        disk.write_at(fd, data[:cut], at)
        disk.step("recovery.written")
        behind = foreign_at + length
        following = self._segment_behind(segment, segment.start + behind + len(data) - cut)
        if following is None:
            return cut, segment.start + behind
        # An earlier recovery may have come so far before the other program went on.
        rest = data[cut:]
        stands = _common(rest, os.pread(fd, len(rest), behind))
        return cut + rest.rfind(b"\n", 0, stands) + 1, following

    def _segment_behind(self, segment: Segment, end: int) -> int | None:
        """Where the next segment begins, if that is before an offset up to which this one is to be filled.

        Empty ones were made for lines that go elsewhere now, and are removed: they would lie across those.
        """
        while (place := self._segments.index(segment) + 1) < len(self._segments):
            ahead = self._segments[place]
            if ahead.path.stat().st_size:
                return ahead.start if ahead.start < end else None
            disk.unlink(ahead.path)
            self._result.touched.discard(ahead.path)
            del self._segments[place]
        return None

    def _is_overrun(self, offset: int, data: bytes) -> bool:
        """Whether another program's lines stand in the segment before, where a new one is to begin."""
        place = bisect_left(self._segments, offset, key=attrgetter("start"))
        if not place:
            return False
        before = self._segments[place - 1]
        fd = disk.open_file(before.path, os.O_RDWR)
        try:
            at = offset - before.start
            foreign = self._foreign_run(fd, at, data)
        finally:
            os.close(fd)
        return foreign is not None and foreign[0] == at

    def _segment_for(self, offset: int, starts_segment: bool) -> Segment:
        place = bisect_right(self._segments, offset, key=attrgetter("start"))
        segment = self._segments[place - 1] if place else None
        if segment is None or (starts_segment and segment.start != offset):
            return self._create(offset)
        if offset > segment.start + segment.path.stat().st_size:
            return self._create(offset)  # what was before it is lost: zeros in its place would be worse than a gap
        return segment

    def _create(self, start: int) -> Segment:
        if self._segments:
            # If the power took their names and left this one's, the next recovery would take them for removed.
            disk.sync_path(self._directory)
        path = self._directory / segment_name(start)
        os.close(disk.open_file(path, os.O_RDWR | os.O_CREAT))
        segment = Segment(start, path)
        insort(self._segments, segment)
        return segment

    def _foreign_run(self, fd: int, at: int, data: bytes) -> tuple[int, int] | None:
        """Where in the file, and how long, the first whole lines stand that the journal does not know."""
        first = behind_newline(fd, at)
        there = os.pread(fd, disk.size(fd) - first, first)
        newline = there.find(b"\n")
        if first < at <= first + newline and self._is_foreign(there[:newline], b""):
            # Ours would begin inside of it: what was before it is removed.
            end = newline + 1
            while (newline := there.find(b"\n", end)) >= 0 and self._is_foreign(there[end:newline], b""):
                end = newline + 1
            return first, end
        there = there[at - first :]
        begin = 0
        while begin < len(data) and (newline := there.find(b"\n", begin)) >= 0:
            end = begin
            while newline >= 0 and self._is_foreign(there[end:newline], data[end:newline]):
                end = newline + 1
                newline = there.find(b"\n", end)
            if end > begin:
                return at + begin, end - begin
            begin = newline + 1
        return None

    def _is_foreign(self, line: bytes, ours: bytes) -> bool:
        # Not at its beginning: Go up to 1.12 glues a line to a torn one, of which there may be a byte or two.
        whole = _ENVELOPE_BEGINS in line and line.endswith(b"}") and b"\0" not in line
        return whole and hash(line) not in self._own_lines and not _nearly(line, ours)

    def _report_foreign(self, segment: Segment, at: int, length: int) -> None:
        offset = segment.start + at
        known = self._result.conflicts.get(self._channel, offset)
        self._result.conflicts[self._channel] = min(known, offset)
        self._result.notes.append(
            f"{segment.path}: another program wrote {length} bytes at {at}; they stay, "
            "and what the journal holds follows behind them"
        )

    def _cut_torn_end(self) -> None:
        segments, touched = self._segments, self._result.touched
        for cut in cut_torn_end(segments):
            self._result.notes.append(str(cut))
            touched.add(cut.path)
        # Who has been beyond the end is brought back to it (`Recovered.ends`).
        dropped = drop_segments_ahead(segments)
        if dropped:
            touched.difference_update(dropped)
            touched.add(self._directory)
        last = segments[-1]
        touched.add(last.path)
        self._result.ends[self._channel] = last.start + last.path.stat().st_size


def _nearly(line: bytes, ours: bytes) -> bool:
    return len(line) == len(ours) and sum(a != b for a, b in zip(line, ours, strict=True)) <= _DAMAGE_BYTES


def _common(ours: bytes, there: bytes) -> int:
    """How many bytes at the beginning are the same."""
    return next((at for at, (a, b) in enumerate(zip(ours, there, strict=False)) if a != b), min(len(ours), len(there)))
