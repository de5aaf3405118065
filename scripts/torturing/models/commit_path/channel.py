"""The segments of a channel, and the writer's side of it: plan, make names, append."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.entries import Append, SpillPart
from torturing.models.commit_path.line import Cell, Found, Line, behind_newline, read_lines

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

ROLL_CELLS = 12


class ForeignWriteError(Exception):
    """A segment has another length than it should have: another program writes here."""


def segments_of(directory: Directory | None) -> list[tuple[int, File]]:
    """The segments of a channel by their starts."""
    if directory is None:
        return []
    return sorted(directory.names.items())  # type: ignore[arg-type]


def read_channel(directory: Directory | None) -> Iterator[Found]:
    """Every line of a channel, with its global offset."""
    for start, file in segments_of(directory):
        for found in read_lines(file.cells):
            yield found.moved(start)


def align(directory: Directory | None, offset: int) -> int:
    """Where a reader with this offset begins: never inside a line, beyond the end or below the first segment."""
    segments = segments_of(directory)
    if not segments:
        return 0
    if offset < segments[0][0]:
        return segments[0][0]
    place = max(number for number, (start, _file) in enumerate(segments) if start <= offset)
    start, file = segments[place]
    if offset - start > len(file) and place + 1 < len(segments):
        return segments[place + 1][0]
    return start + behind_newline(file.cells, min(offset - start, len(file)))


def next_line(directory: Directory | None, offset: int) -> Found | None:
    """What a reader finds at an offset; it passes over gaps, and over what cannot be read."""
    segments = segments_of(directory)
    if not segments:
        return None
    place = max((number for number, (start, _file) in enumerate(segments) if start <= offset), default=0)
    while place < len(segments):
        start, file = segments[place]
        for found in read_lines(file.cells, max(0, offset - start)):
            if found.line is not None:
                return found.moved(start)
        if not any(len(later) for _start, later in segments[place + 1 :]):
            return None
        place += 1
        offset = segments[place][0]
    return None


class Chunk:
    """Cells that one entry puts into one segment."""

    __slots__ = ("cells", "offset", "segment", "spill")

    def __init__(self, segment: int, offset: int, spill: SpillPart | None) -> None:
        self.segment = segment
        self.offset = offset
        self.spill = spill
        self.cells: list[Cell] = []


class Channel:
    """One channel as the writer appends to it."""

    __slots__ = (
        "_file",
        "_roll",
        "_world",
        "active",
        "chunks",
        "directory",
        "end",
        "name",
        "planned_end",
        "planned_start",
    )

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._roll = ROLL_CELLS if world.mode.rolling else 0
        self.name = name
        self.directory = Directory()
        self.active = 0
        self.end = 0
        self.chunks: list[Chunk] = []
        self.planned_end = 0
        self.planned_start = 0

    def open(self, furthest: Callable[[], int]) -> list[Directory]:
        """Find the end; the directories whose names a checkpoint has to sync."""
        channels = self._world.disk.channels
        found = channels.directory(self.name)
        if found is None:
            found = Directory()
            channels.put(self.name, found)
        self.directory = found
        segments = segments_of(found)
        if self._world.rules.torn_line_cut:
            for file in cut_torn_end(segments):
                file.sync()  # else old bytes and new ones might make a line that nobody wrote
        if self._world.rules.empty_segments_dropped and drop_segments_ahead(found, segments, furthest):
            found.sync()
        made = not segments
        if made:
            found.put(0, File())
            segments = segments_of(found)
        self.active, self._file = segments[-1]
        self.end = self.planned_end = self.active + len(self._file)
        self.planned_start = self.active
        if made or (not len(self._file) and self._world.rules.empty_segment_is_new):
            return [channels, found]
        return []

    # ---- planning

    def plan(self, line: Line, spill: SpillPart | None = None) -> None:
        """Give a line its place."""
        used = self.planned_end - self.planned_start
        fresh = spill is not None
        if used and used + line.length > self._roll > 0:
            self.planned_start = self.planned_end
            fresh = True
        if fresh or not self.chunks or self.chunks[-1].spill is not None:
            self.chunks.append(Chunk(self.planned_start, self.planned_end, spill))
        self.chunks[-1].cells += line.cells
        self.planned_end += line.length

    def prepare(self) -> None:
        """Make the segments that the plan begins. Raises `ForeignWriteError`."""
        starts = sorted({chunk.segment for chunk in self.chunks} - {self.active})
        rules = self._world.rules
        if starts and rules.left_segment_looked_at:
            self._look_at_length(self.active, self.end)
        if starts and rules.names_in_turn:
            self.directory.sync()
        for start in starts:
            if start not in self.directory.names:
                self.directory.put(start, File())
                self._world.say("{}: segment {} is made", self.name, start)
                self._world.step("segment.created")
        if starts and rules.names_before_frames:
            self.directory.sync()

    def entries(self) -> list[Append]:
        """The plan as a frame holds it."""
        return [
            Append(
                self.name,
                chunk.offset,
                tuple(chunk.cells),
                chunk.offset == chunk.segment and chunk.offset > 0,
                chunk.spill,
            )
            for chunk in self.chunks
        ]

    # ---- applying

    def apply(self, dirty: Callable[[str, int, File], None]) -> None:
        """Write the plan to the segments. Raises `ForeignWriteError`."""
        world = self._world
        while self.chunks:
            chunk = self.chunks[0]
            if chunk.segment != self.active and world.rules.left_segment_looked_at:
                self._look_at_length(self.active, self.end)
            self.active = chunk.segment
            if world.rules.size_looked_at:
                self._look_at_length(chunk.segment, chunk.offset)
            found = self.directory.file(chunk.segment)
            # One that was removed is still written to.
            self._file = file = self._file if found is None else found
            at = chunk.offset - chunk.segment
            dirty(self.name, chunk.segment, file)
            half = world.chance.randint(0, len(chunk.cells))
            file.write(at, chunk.cells[:half])
            world.step("half of a chunk is written", alone=True)
            file.write(at + half, chunk.cells[half:])
            world.step("segment.written")
            self.end = chunk.offset + len(chunk.cells)
            del self.chunks[0]

    def _look_at_length(self, start: int, end: int) -> None:
        file = self.directory.file(start)
        if file is not None and start + len(file) != end:
            raise ForeignWriteError(f"{self.name}/{start}: it ends at {start + len(file)} instead of {end}")


def cut_torn_end(segments: list[tuple[int, File]]) -> list[File]:
    """Cut what follows the channel's last newline, also where empty segments follow it; what was cut."""
    cut = []
    for _start, file in reversed(segments):
        whole = behind_newline(file.cells, len(file))
        if whole < len(file):
            file.cut(whole)
            cut.append(file)
        if whole:
            break
    return cut


def drop_segments_ahead(
    directory: Directory, segments: list[tuple[int, File]], furthest: Callable[[], int] = lambda: 0
) -> bool:
    """Remove empty segments at the end that do not begin where the one before them ends; whether there were any.

    They were made for a commit that never was. Where a subscriber has been (``furthest``), the gap is real.
    """
    dropped = False
    while len(segments) > 1 and not len(segments[-1][1]):
        (before, file), (ahead, _empty) = segments[-2:]
        end = before + len(file)
        if end == ahead or end < min(ahead, furthest()):
            break
        directory.remove(ahead)
        segments.pop()
        dropped = True
    return dropped
