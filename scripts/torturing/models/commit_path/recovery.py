"""Making the files whole after a crash: what the journal says is written to the segments again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import align
from torturing.models.commit_path.cursors import list_offsets
from torturing.models.commit_path.data import ATTEMPTS
from torturing.models.commit_path.disk import Directory, File, SyncFailedError
from torturing.models.commit_path.entries import Append, Consumed, CursorState, Forgotten, Key
from torturing.models.commit_path.journal import NAMES, Frame, JournalContents
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.replay import ChannelReplay, Run
from torturing.models.commit_path.spill import read_spilled
from torturing.models.commit_path.writer import Writer

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


class Recovery:
    """One try of it; after a failed sync the next one begins from the beginning."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cursors: dict[Key, CursorState] = {}
        self.rings: dict[int | str, Consumed] = {}
        self.ends: dict[str, int] = {}
        self.conflicts: dict[str, int] = {}
        self.spills: set[str] = set()
        self._touched: dict[File, None] = {}
        self._directories: dict[Directory, None] = {}
        contents = [JournalContents(world, world.disk.journal, name) for name in NAMES]
        self._live = sorted((file for file in contents if file.live), key=lambda file: file.first)
        self._free = [file for file in contents if not file.live]

    def run(self) -> None:
        """Replay. Raises `SyncFailedError`."""
        world = self._world
        if world.rules.free_file_synced:
            for contents in self._free:
                contents.file.write(0, (None, None))
                world.sync(contents.file)
                world.step("recovery.journal_synced")
        if not self._live:
            return
        frames = self._whole_run()
        world.say("recovery finds frames {}", [frame.number for frame in frames])
        for contents in self._live:
            if world.rules.written_whatever_is_seen:
                contents.file.write(0, list(contents.file.cells))
            if world.rules.journal_synced_first:
                world.sync(contents.file)
            world.step("recovery.journal_synced")
        runs: dict[str, list[Run]] = {}
        for frame in frames:
            self._collect(frame, runs)
        for channel, channel_runs in runs.items():
            replay = ChannelReplay(world, channel, self._touched, self._directories)
            self.ends[channel] = replay.replay(channel_runs)
            if replay.conflict is not None:
                self.conflicts[channel] = replay.conflict
        if world.rules.segments_synced_first:
            for file in self._touched:
                world.sync(file)
        if world.rules.names_synced_first:
            for directory in self._directories:
                directory.sync()
        world.step("recovery.applied")

    def _whole_run(self) -> list[Frame]:
        """The frames in order, up to the torn end. A hole that a later frame proves to have been synced is no end."""
        rules = self._world.rules
        frames = [frame for contents in self._live for frame in contents.frames]
        proven = max((frame.synced for frame in frames), default=0) if rules.later_frame_proves else 0
        expected = self._live[0].first
        for number, frame in enumerate(frames):
            if frame.number != expected:
                if proven < frame.number - 1 and rules.torn_end:
                    return frames[:number]
                if proven < frame.number - 1:
                    continue
                self._world.say("frames {} to {} are damaged and lost", expected, frame.number - 1)
                self._world.ledger.note_reported_lost(expected, frame.number)
            expected = frame.number + 1
        return frames

    # ---- what the frames say

    def _collect(self, frame: Frame, runs: dict[str, list[Run]]) -> None:
        for item in frame.entries:
            if type(item) is Append:
                if item.spill is not None:
                    self.spills.add(item.spill.name)
                cells = read_spilled(self._world, item)
                if cells is None:
                    self._world.say("{} cells are lost with {}", len(item.cells), item.spill)
                    continue
                _add_run(runs.setdefault(item.channel, []), Run(item.offset, list(cells), item.starts_segment))
            elif type(item) is CursorState:
                self._add_cursor(item)
            elif type(item) is Forgotten:
                self._forget(item.key)
            else:
                assert type(item) is Consumed
                ring = item.ring if self._world.rules.ring_ids else item.owner.partition("#")[0]
                earlier = self.rings[ring].answers if ring in self.rings else ()
                self.rings[ring] = item._replace(answers=earlier + item.answers)

    def _add_cursor(self, state: CursorState) -> None:
        known = self.cursors.get(state.key)
        if self._world.rules.most_moves_win:
            wins = known is None or state.moves >= known.moves
        else:
            wins = known is None or state.offset >= known.offset
        if wins:
            self.cursors[state.key] = state

    def _forget(self, key: Key) -> None:
        self.cursors.pop(key, None)
        directory = self._world.disk.subscribers.directory(key[0])
        if directory is not None:
            directory.remove(key[1])
            self._directories[directory] = None

    # ---- handing it over

    def hand_over(self, writer: Writer) -> None:
        """Cursors to the new writer's table and to their files, positions to the rings, then free the journal.

        Raises `SyncFailedError`.
        """
        world = self._world
        self._restore_cursors(writer)
        writer.look_around()
        for port in writer.ports:
            self._take_over(port)
        if not self._live:
            return
        while not self._file_cursors(writer):
            world.step("a sync of an offset file failed")
        world.step("recovery.offsets_synced")
        self._free_journal()
        world.step("recovery.freed")
        writer.spills.remove(self.spills)

    def _restore_cursors(self, writer: Writer) -> None:
        world = self._world
        for key, state in self.cursors.items():
            writer.cursors.restore(state, self._standing(key[0], state.offset, key[1]))
        for channel in self.ends:
            for id, value in list_offsets(world, channel).items():
                if (channel, id) in writer.cursors.by_key:
                    continue
                offset = self._standing(channel, value, id)
                if offset != value:
                    writer.cursors.unfiled.add(writer.cursors.add((channel, id), offset))

    def _standing(self, channel: str, offset: int, id: str) -> int:
        """Where a cursor may stand: not behind another program's lines, not beyond the end, not inside a line."""
        rules = self._world.rules
        capped = offset
        if rules.conflict_moves_cursors_back:
            capped = min(capped, self.conflicts.get(channel, offset))
        because_of_conflict = capped != offset
        if rules.offsets_capped:
            capped = min(capped, self.ends.get(channel, offset))
            if capped == offset:
                capped = align(self._world.disk.channels.directory(channel), offset)
        if capped != offset:
            self._world.say("the cursor of {} moves from {} to {}", id, offset, capped)
            self._world.ledger.note_moved_back(conflict=because_of_conflict)
        return capped

    def _take_over(self, port: Port) -> None:
        """Answers that count already stay; what a frame says of the ring counts if it is ahead of it."""
        port.answers = [answer for answer in port.answers if answer.position <= port.committed]
        ring = port.ring if self._world.rules.ring_ids else port.owner.partition("#")[0]
        consumed = self.rings.pop(ring, None)
        if consumed is None or not port.committed < consumed.position:
            return
        port.answers += [a for a in consumed.answers if port.committed < a.position <= consumed.position]
        self._world.step("answers are handed over")
        port.committed = consumed.position

    def _file_cursors(self, writer: Writer) -> bool:
        """Write and sync offset files and attempts; whether the syncs held."""
        world = self._world
        if not world.rules.offsets_synced_first:
            return True
        cursors = writer.cursors
        cursors.file()
        cursors.file_attempts()
        files = list(cursors.unsynced_files.items())
        attempts = world.disk.run.file(ATTEMPTS)
        try:
            if attempts is not None:
                world.sync(attempts)
            for _key, file in files:
                world.sync(file, forget=True)
        except SyncFailedError:
            for key, file in files:
                cursors.write_again(key, file)
            return False
        if world.rules.names_synced_first:
            for channel in sorted({key[0] for key, _file in files}):
                found = world.disk.subscribers.directory(channel)
                if found is not None:
                    found.sync()
            world.disk.subscribers.sync()
            world.disk.run.sync()
        return True

    def _free_journal(self) -> None:
        live = self._live if self._world.rules.older_file_first else self._live[::-1]
        for contents in live:
            contents.file.write(0, (None, None))
            self._world.step("recovery.zeroed")
            while True:
                try:
                    self._world.sync(contents.file)
                except SyncFailedError:
                    contents.file.write(0, (None, None))
                    self._world.step("a sync of the journal failed")
                else:
                    break


def _add_run(runs: list[Run], run: Run) -> None:
    if runs and not run.starts_segment and runs[-1].offset + len(runs[-1].cells) == run.offset:
        runs[-1].cells += run.cells
    else:
        runs.append(run)
