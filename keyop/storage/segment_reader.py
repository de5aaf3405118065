"""Reading a channel's lines from an offset on, over segments that come, go, overlap or are missing."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from keyop.storage.segments import MAX_LINE_BYTES, Segment, list_segments, segment_name

CHUNK_BYTES = 512 * 1024
_GROWTH = 4
_OPEN_TRIES = 5

# A segment's mtime comes from a clock that lags by a tick, and FAT keeps it to two seconds.
_MTIME_SLACK_NS = 2_000_000_000


class Event(enum.Enum):
    """What a reader came across that somebody should know of."""

    GAP = "a gap between segments"
    OVERLAP = "a segment begins before the one before it ends"
    TORN = "the last line of a segment has no end"
    EVICTED = "what was not read yet has been removed"
    OVERSIZED = "a line is over the limit and skipped"
    REMADE = "the channel was deleted and made anew"
    FOREIGN = "is no segment and ignored"


class SegmentEvent(NamedTuple):
    """Something to log and to count; `str()` makes the sentence."""

    event: Event
    path: Path
    """The segment that the reader goes on in, or the foreign file."""
    from_offset: int = 0
    to_offset: int = 0

    def __str__(self) -> str:
        if self.event is Event.FOREIGN:
            return f"{self.path}: {self.event.value}"
        moved = self.to_offset - self.from_offset
        return f"{self.path}: {self.event.value}; from {self.from_offset} to {self.to_offset}, {moved} bytes"


class Batch(NamedTuple):
    """Whole lines that follow each other: a line's offset is the one before its own plus its length plus 1."""

    lines: list[bytes]
    """Without their newlines; never empty."""
    start: int
    """Global offset of the first line."""
    end: int
    """Global offset behind the last one."""


class SegmentReader:
    """A place in a channel. Not for several threads at once.

    `offset` is the global offset of the next byte to read; it also moves without a batch, when something is skipped.
    `events` collects what came up on the way; the caller logs it and clears the list.
    """

    __slots__ = (
        "_chunk_bytes",
        "_directory",
        "_fd",
        "_foreign",
        "_known",
        "_last_look",
        "_lost",
        "_max_line_bytes",
        "_start",
        "_tail_bytes",
        "events",
        "offset",
    )

    def __init__(
        self, directory: Path, offset: int, *, max_line_bytes: int = MAX_LINE_BYTES, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        """`offset` is one that align_offset has seen. Nothing has to exist yet, and nothing is opened here.

        `chunk_bytes`: how much is read at once, and held until the next batch.
        """
        self.offset = offset
        self.events: list[SegmentEvent] = []
        self._directory = directory
        self._max_line_bytes = max_line_bytes
        self._chunk_bytes = min(chunk_bytes, max_line_bytes)
        self._fd = -1
        self._start = 0
        # Starts of later segments, as far as they are known.
        self._known: list[int] = []
        # Of an unfinished line at the end of what is there.
        self._tail_bytes = 0
        self._last_look = False
        self._lost = False
        self._foreign: set[str] = set()

    def close(self) -> None:
        """Give up the descriptor. Reading again opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def segment_start(self) -> int:
        """Where the segment begins that was read last, as a global offset."""
        return self._start

    def read_batch(self, relist: bool = False, *, settled: bool = True) -> Batch | None:
        """The next whole lines, up to CHUNK_BYTES of them; None if there are none now.

        When there is nothing to read this costs two system calls, and finds the next segment if its name is where this
        one ends. With `relist` it also looks through the directory: for a segment behind a gap or an overlap, and for
        a channel that was deleted. Unless `settled`, what is missing or has no end may still come, and is not passed
        over. Raises OSError, and may be called again then.
        """
        if self._fd < 0 and not self._open():
            return None
        while True:
            batch = self._read_here(settled)
            if batch is not None:
                self._last_look = False
                return batch
            if not self._leave(relist, settled):
                return None

    def _read_here(self, settled: bool) -> Batch | None:
        """What the current segment has. Nothing of an unfinished line is kept: it may be cut and written anew."""
        size = self._chunk_bytes
        while True:
            start = self.offset
            data = os.pread(self._fd, size, start - self._start)
            # Not splitlines(), which splits at \r, too.
            lines = data.split(b"\n")
            rest = lines.pop()
            if lines:
                self.offset = end = start + len(data) - len(rest)
                return Batch(lines, start, end)
            if len(data) < size:
                self._tail_bytes = len(data)
                return None
            if size < self._max_line_bytes:
                size = min(size * _GROWTH, self._max_line_bytes)
            elif settled and self._skip_oversized():
                size = self._chunk_bytes
            else:
                return None

    def _skip_oversized(self) -> bool:
        """Go behind the line at the offset, which is too long to hold. False if its end has not been written yet."""
        position = self.offset - self._start + self._max_line_bytes
        while data := os.pread(self._fd, CHUNK_BYTES, position):
            newline = data.find(b"\n")
            if newline >= 0:
                self._move(Event.OVERSIZED, self._start, self._start + position + newline + 1)
                return True
            position += len(data)
        self._tail_bytes = position - (self.offset - self._start)
        return False

    # ---- from segment to segment

    def _open(self) -> bool:
        """Open the segment that holds the offset; False if there is none yet."""
        for _ in range(_OPEN_TRIES):
            segments = self._list()
            if not segments:
                return False
            here = [segment.start for segment in segments if segment.start <= self.offset]
            if not here or self._lost:
                event = Event.REMADE if self._lost else Event.EVICTED
                start = segments[0].start
                if self._enter(start):
                    self._move(event, start, start)
                    self._lost = False
                    return True
            elif self._enter(here[-1]):
                return True
            # Removed between the list and the look.
        return False

    def _enter(self, start: int) -> bool:
        """Open the segment of this name instead of the current one; False if there is none."""
        try:
            # Not to hang on a named pipe of that name.
            fd = os.open(f"{self._directory}/{segment_name(start)}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return False
        self.close()
        self._fd = fd
        self._start = start
        self._known = [known for known in self._known if known > start]
        self._tail_bytes = 0
        self._last_look = False
        return True

    def _leave(self, relist: bool, settled: bool) -> bool:
        """All of the current segment is read: whether there is reason to read on, here or in the next one."""
        if not self._known:
            # The writer names a segment after the place where the one before it ends.
            if self._tail_bytes == 0 and self.offset > self._start and self._enter(self.offset):
                return True
            if not relist:
                return False
        elif self._known[0] == self.offset and self._tail_bytes == 0 and self._enter(self.offset):
            return True
        return settled and self._leave_irregularly()

    def _leave_irregularly(self) -> bool:
        segments = self._list()
        later = [segment for segment in segments if segment.start > self._start]
        if not later:
            return self._was_removed() and self._begin_anew(segments)
        following = later[0].start
        if following == self.offset and self._tail_bytes == 0:
            return self._enter(following)
        # The writer makes the next segments before it fills this one: only bytes in one of them prove this one full.
        if not any(_has_bytes(segment.path) for segment in later):
            return False
        if not self._last_look:
            # And these may have come in since the last read.
            self._last_look = True
            return True
        return self._jump(following, is_first=segments[0].start == following)

    def _jump(self, following: int, *, is_first: bool) -> bool:
        torn_bytes = self._tail_bytes
        if not self._enter(following):
            return False
        if torn_bytes:
            self._move(Event.TORN, following, self.offset + torn_bytes)
        if self.offset > following:
            self._move(Event.OVERLAP, following, following)
        elif self.offset < following:
            self._move(Event.EVICTED if is_first else Event.GAP, following, following)
        return True

    def _was_removed(self) -> bool:
        return os.fstat(self._fd).st_nlink == 0

    def _begin_anew(self, segments: list[Segment]) -> bool:
        """The open segment is gone and no later one is there: the channel was deleted. What comes now is all new."""
        self.close()
        self._lost = True
        return bool(segments) and self._open()

    def _move(self, event: Event, segment_start: int, to_offset: int) -> None:
        self.events.append(SegmentEvent(event, self._path(segment_start), self.offset, to_offset))
        self.offset = to_offset

    def _path(self, start: int) -> Path:
        return self._directory / segment_name(start)

    def _list(self) -> list[Segment]:
        segments, foreign = list_segments(self._directory)
        self._known = [segment.start for segment in segments if self._fd < 0 or segment.start > self._start]
        for name in foreign:
            if name not in self._foreign:
                self._foreign.add(name)
                self.events.append(SegmentEvent(Event.FOREIGN, self._directory / name))
        return segments


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def first_offset_since(
    directory: Path, cutoff_ns: int, ts_of_line: Callable[[bytes], int | None], from_offset: int = 0
) -> int:
    """Where the first record in file order begins, from `from_offset` on, whose time is `cutoff_ns` or later.

    Times are in nanoseconds since 1970. Lines whose time `ts_of_line` cannot tell are passed over. If all records are
    older: the end. Segments that nobody has written to since are passed unread. Raises OSError.
    """
    reader = SegmentReader(directory, _behind_old_segments(directory, cutoff_ns, from_offset))
    try:
        while batch := reader.read_batch(relist=True):
            offset = batch.start
            for line in batch.lines:
                ts_ns = ts_of_line(line)
                if ts_ns is not None and ts_ns >= cutoff_ns:
                    return offset
                offset += len(line) + 1
        return reader.offset
    finally:
        reader.close()


def _behind_old_segments(directory: Path, cutoff_ns: int, from_offset: int) -> int:
    segments, _ = list_segments(directory)
    for segment, following in pairwise(segments):
        if following.start <= from_offset:
            continue
        try:
            changed_ns = segment.path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        if changed_ns + _MTIME_SLACK_NS >= cutoff_ns:
            break
        from_offset = following.start
    return from_offset
