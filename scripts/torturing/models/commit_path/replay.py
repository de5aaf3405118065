"""Writing one channel again from the journal: each line at its place, but behind whole lines that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import cut_torn_end, drop_segments_ahead, segments_of
from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.line import Cell, Line, behind_newline, line_end, read_lines

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


class Run:
    """Cells that belong at one place of a channel, contiguous over frames."""

    __slots__ = ("cells", "offset", "starts_segment")

    def __init__(self, offset: int, cells: list[Cell], starts_segment: bool) -> None:
        self.offset = offset
        self.cells = cells
        self.starts_segment = starts_segment


class ChannelReplay:
    """Replays one channel."""

    def __init__(
        self, world: World, channel: str, touched: dict[File, None], directories: dict[Directory, None]
    ) -> None:
        self._world = world
        self._channel = channel
        self._touched = touched
        self._shift = 0
        # Where the first of another program's lines was found in the place of ours.
        self.conflict: int | None = None
        found = world.disk.channels.directory(channel)
        if found is None:
            found = Directory()
            world.disk.channels.put(channel, found)
        self._directory = found
        directories[world.disk.channels] = None
        directories[found] = None

    def replay(self, runs: list[Run]) -> int:
        """Bring all runs to their places, and cut the torn rest of the last line; the channel's end."""
        self._own = {found.line for run in runs for found in read_lines(run.cells)}
        segments = segments_of(self._directory)
        first = segments[0][0] if segments else None
        for run in runs:
            if first is not None and run.offset < first:
                continue  # removed on purpose since
            self._place(run.cells, run.offset + self._shift, run.starts_segment and not self._shift)
        segments = segments_of(self._directory)
        if not segments:
            return 0
        rules = self._world.rules
        if rules.torn_line_cut:
            cut_torn_end(segments)
        if rules.empty_segments_dropped:
            drop_segments_ahead(self._directory, segments)
        for _start, file in segments:
            self._touched[file] = None
        start, file = segments[-1]
        return start + len(file)

    def _place(self, cells: Sequence[Cell], offset: int, starts_segment: bool) -> None:
        world = self._world
        start, file = self._segment_for(offset, starts_segment and not self._is_overrun(offset, cells))
        self._touched[file] = None
        at = offset - start
        if not world.rules.exact_places:
            self._append_what_is_missing(file, at, cells)
            return
        there = file.cells[at : at + len(cells)]
        foreign = None
        if there != list(cells[: len(there)]):
            foreign = self._foreign_run(file, at, len(cells))
        elif len(there) == len(cells) and not world.rules.written_whatever_is_seen:
            return
        if foreign is None:
            file.write(at, cells)
            world.step("recovery.written")
            return
        self._go_behind(foreign, start, file, at, cells)

    def _go_behind(self, foreign: tuple[int, int], start: int, file: File, at: int, cells: Sequence[Cell]) -> None:
        world = self._world
        begin, end = foreign
        world.say("{}/{}: another program's lines stand from {} to {}", self._channel, start, begin, end)
        if self.conflict is None or start + begin < self.conflict:
            self.conflict = start + begin
        world.ledger.note_conflict(self._channel)
        cut = behind_newline(cells, begin - at)
        file.write(at, cells[:cut])
        world.step("recovery.written")
        if not world.rules.behind_first_run:
            end = len(file)
        following = self._room_behind(start, start + end, len(cells) - cut)
        if following > start + end:
            # An earlier recovery may have come so far before the other program went on.
            cut += _common(cells[cut:], file.cells[end:])
        self._shift += following - (start + at + cut)
        self._place(cells[cut:], following, False)

    def _room_behind(self, start: int, end: int, length: int) -> int:
        """Where to go on behind another program's lines that end there.

        Later segments were made for lines that go elsewhere now, and would lie across them: they are removed, or, if
        the other program went on there itself, the first of them it is.
        """
        for ahead, file in segments_of(self._directory):
            if ahead > start and self._world.rules.planned_segments_dropped:
                if len(file):
                    return ahead if ahead < end + length else end
                self._directory.remove(ahead)
        return end

    def _append_what_is_missing(self, file: File, at: int, cells: Sequence[Cell]) -> None:
        length = len(file)
        if length < at + len(cells):
            file.write(length, cells[max(0, length - at) :])
            self._world.step("recovery.written")

    # ---- where

    def _is_overrun(self, offset: int, cells: Sequence[Cell]) -> bool:
        """Whether another program's lines stand in the segment before, where a new one is to begin."""
        before = next((segment for segment in reversed(segments_of(self._directory)) if segment[0] < offset), None)
        foreign = self._foreign_run(before[1], offset - before[0], len(cells)) if before is not None else None
        return before is not None and foreign is not None and before[0] + foreign[0] == offset

    def _segment_for(self, offset: int, starts_segment: bool) -> tuple[int, File]:
        segments = segments_of(self._directory)
        if starts_segment and all(start != offset for start, _file in segments):
            return self._create(offset)
        found = next((segment for segment in reversed(segments) if segment[0] <= offset), None)
        if found is None:
            return self._create(offset)
        if offset > found[0] + len(found[1]):
            if self._world.rules.gap_begins_segment:
                self._world.ledger.note_gap(self._channel, offset)
                return self._create(offset)
            self._world.ledger.note_zeros(self._channel, offset)
        return found

    def _create(self, start: int) -> tuple[int, File]:
        file = File()
        self._directory.put(start, file)
        self._world.say("{}: recovery makes segment {}", self._channel, start)
        if self._world.rules.names_in_turn:
            self._directory.sync()
        self._world.step("recovery.created")
        return start, file

    # ---- another program's lines

    def _foreign_run(self, file: File, at: int, length: int) -> tuple[int, int] | None:
        """Where the first whole lines stand that the journal does not know, and where they end."""
        if not self._world.rules.foreign_lines_stay:
            return None
        begin = at
        while begin < at + length and (end := line_end(file.cells, begin)) is not None:
            behind = begin
            while end is not None and self._is_foreign(file.cells[behind:end]):
                behind = end
                end = line_end(file.cells, behind)
            if behind > begin:
                return begin, behind
            assert end is not None
            begin = end
        return None

    def _is_foreign(self, line: Sequence[Cell]) -> bool:
        """It begins and ends like an envelope, without a hole, and is not one of ours."""
        first, last = line[0], line[-1]
        if first is None or last is None or first[1] != 0 or None in line:
            return False
        written = last[0]
        assert type(written) is Line
        return written not in self._own or tuple(line) != written.cells


def _common(cells: Sequence[Cell], there: Sequence[Cell]) -> int:
    """How many cells of whole lines stand there already."""
    count = 0
    while count < min(len(cells), len(there)) and cells[count] == there[count]:
        count += 1
    return behind_newline(cells, count)
