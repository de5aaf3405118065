"""The writer: round, frame, sync, segments, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import Channel
from torturing.models.commit_path.checkpoint import Checkpoint
from torturing.models.commit_path.cursors import Cursor, Cursors, list_offsets, write_offset
from torturing.models.commit_path.data import ATTEMPTS
from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.entries import Entry
from torturing.models.commit_path.journal import Journal
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.retention import look
from torturing.models.commit_path.round import Round
from torturing.models.commit_path.spill import Spills
from torturing.models.commit_path.subscriptions import Subscriptions

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

# Processes may go on while the writer leaves; what they put into their rings then is the next writer's.
_DRAIN_ROUNDS = 20


class Writer:
    """One life of it, from the end of the recovery on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cursors = Cursors(world)
        self.subscriptions = Subscriptions(world, self.cursors)
        self.spills = Spills(world)
        self.ports: list[Port] = []
        self.is_open = False
        self.is_committing = False
        self._channels: dict[str, Channel] = {}
        self._unsynced_directories: dict[Directory, None] = {}
        self._moved: list[Cursor] = []
        self._wanted: list[Callable[[], None]] = []
        self._finished: list[Checkpoint] = []
        self._submitted: Checkpoint | None = None

    def begin(self) -> None:
        """With the journal free: take up what outlived the last writer, and say OPEN."""
        world = self._world
        self.journal = Journal(world, world.disk.journal)
        self._dirty = Checkpoint(None)
        self.subscriptions.adopt_all(self.ports)
        self.spills.sweep({port.ring for port in self.ports})
        self.is_open = True

    def channel(self, name: str) -> Channel:
        """The writer's side of a channel, opened."""
        channel = self._channels.get(name)
        if channel is None:
            channel = Channel(self._world, name)
            made = channel.open(lambda: max(list_offsets(self._world, name).values(), default=0))
            self._unsynced_directories.update(dict.fromkeys(made))
            self._channels[name] = channel
            self._cap_offsets(channel)
            self._world.step("channel.opened")
        return channel

    def _cap_offsets(self, channel: Channel) -> None:
        """An offset beyond the end would pass over what comes next: it moves back, synced, before that comes."""
        world = self._world
        directory = world.disk.subscribers.directory(channel.name)
        for id, offset in list_offsets(world, channel.name).items():
            if offset > channel.end and (channel.name, id) not in self.cursors.by_key and world.rules.offsets_capped:
                assert directory is not None
                write_offset(directory, id, channel.end).sync()
                directory.sync()
                world.say("the cursor of {} moves from {} to {}", id, offset, channel.end)
                world.ledger.note_moved_back(conflict=False)

    # ---- one round

    def commit_round(self, *, tick: bool) -> bool:
        """Commit what is there; whether anything was."""
        self.is_committing = True
        worked = self._commit_round(tick)
        self.is_committing = False
        return worked

    def _commit_round(self, tick: bool) -> bool:
        world = self._world
        self.look_around()
        this = Round(world, self)
        if tick:
            self._moved += self.cursors.moved()
            self._finish_checkpoints()
        self._bury(this)
        this.add_cursors(self._moved)
        self._moved.clear()
        for port in world.chance.sample(self.ports, len(self.ports)):
            this.take(port)
        if self._wanted:
            self._start_checkpoint()
        if not (this.taken or this.cursors or this.buried):
            if tick:
                self.cursors.file()
                world.step("offsets.filed")
            return False
        self._commit(this)
        if tick or this.files_offsets or this.buried:
            self.cursors.file()
            world.step("offsets.filed")
        if this.asking:
            if world.rules.settled_before_freed:
                self._settle(this, [port for port in this.taken if port not in this.asking])
            self.checkpoint()
        self._settle(this, list(this.taken))
        for port in this.buried:
            self.spills.bury(port.ring)
            self.ports.remove(port)
            world.ports.remove(port)
            world.step("swept")
            world.say("the port of {} is swept", port.owner)
        return True

    def look_around(self) -> None:
        """Ports that came."""
        self.ports += [port for port in self._world.ports if port not in self.ports]

    def _bury(self, this: Round) -> None:
        for port in self.ports:
            if not port.alive and port.committed == port.head:
                this.add_cursors(self.subscriptions.bury(port))
                this.buried.append(port)

    def _commit(self, this: Round) -> None:
        if this.is_empty:
            return
        for channel in this.channels:
            channel.prepare()
        entries = this.entries()
        if not self.journal.fits(entries):
            self._make_room(entries)
        rules = self._world.rules
        synced = (this.sync and rules.transactions_synced) or (not self._world.mode.periodic and bool(this.channels))
        self.journal.write(entries)
        if rules.journal_first:
            self._sync(synced, bool(this.channels))
        self.spills.name(this.spilled)
        self._dirty.spills.update(this.spilled)
        self._apply(this)
        if not rules.journal_first:
            self._sync(synced, bool(this.channels))
        if not rules.spill_kept:
            self.spills.remove(set(this.spilled))
        self._world.step("applied")

    def _sync(self, synced: bool, has_lines: bool) -> None:
        if synced:
            self.journal.sync()
        elif has_lines:
            self._world.threads.start_flush()

    def _make_room(self, entries: list[Entry]) -> None:
        if self.journal.in_use:
            self._turn_over()
        if not self.journal.fits(entries):
            self.journal.make_room(entries)

    def _apply(self, this: Round) -> None:
        for channel in this.channels:
            channel.apply(self._is_dirty)
        for cursor in this.cursors:
            cursor.offset = cursor.planned
            self.cursors.unfiled.add(cursor)
        for cursor in this.forgotten:
            self.cursors.forget(cursor)

    def _is_dirty(self, channel: str, start: int, file: File) -> None:
        self._dirty.segments[channel, start] = file

    def _settle(self, this: Round, ports: list[Port]) -> None:
        """The answers count once the position has passed them."""
        first = self._world.rules.answers_first
        for port in ports:
            answers = this.answers.pop(port, [])
            if first:
                port.answers += answers
                self._world.step("answers are written")
            port.committed = this.taken[port]
            if not first:
                self._world.step("settled")
                port.answers += answers
        self._world.step("settled")

    # ---- checkpoints

    def request_checkpoint(self, then: Callable[[], None]) -> None:
        """Have the journal freed, and ``then`` called in the checkpoint's thread."""
        self._wanted.append(then)

    def begin_retention(self) -> None:
        """One look at what may be removed, in a thread of its own."""
        self._world.threads.start("retention", look(self._world, self))

    def _turn_over(self, then: list[Callable[[], None]] | None = None) -> None:
        """The journal file is full, or is to be freed: go over to the other, and checkpoint what was left."""
        if not self.journal.other_is_free:
            self._world.threads.finish("checkpoint")
        checkpoint = self._dirty
        self._add_offsets(checkpoint)
        checkpoint.index = self.journal.switch()
        self._dirty = Checkpoint(None)
        checkpoint.then = then or []
        self._submit(checkpoint)

    def _add_offsets(self, checkpoint: Checkpoint) -> None:
        self._finish_checkpoints()
        cursors = self.cursors
        if self._world.rules.checkpoint_syncs_offsets:
            cursors.file()
        cursors.file_attempts()
        attempts = self._world.disk.run.file(ATTEMPTS)
        if attempts is not None:
            checkpoint.plain_files.append(attempts)
            checkpoint.directories[self._world.disk.run] = None
        checkpoint.files.update(cursors.unsynced_files)
        checkpoint.directories.update(cursors.unsynced_directories)
        checkpoint.directories.update(self._unsynced_directories)
        cursors.unsynced_files.clear()
        cursors.unsynced_directories.clear()
        self._unsynced_directories.clear()

    def _submit(self, checkpoint: Checkpoint) -> None:
        self._world.threads.finish("checkpoint")
        self._submitted = checkpoint
        self._finished.append(checkpoint)
        self._world.threads.start("checkpoint", checkpoint.doing(self._world, self))

    def _start_checkpoint(self) -> None:
        then, self._wanted = self._wanted, []
        if self.journal.in_use:
            self._turn_over(then)
            return
        checkpoint = Checkpoint(None)
        checkpoint.then = then
        self._add_offsets(checkpoint)
        self._submit(checkpoint)

    def checkpoint(self) -> None:
        """Bring everything to its place and free both files, before anything else is committed."""
        if self.journal.in_use:
            self._turn_over()
        self._world.threads.finish("checkpoint")
        self._finish_checkpoints()

    def _finish_checkpoints(self) -> None:
        for checkpoint in [checkpoint for checkpoint in self._finished if checkpoint.done]:
            self._finished.remove(checkpoint)
            self.spills.remove(checkpoint.spills)

    # ---- the end

    def leave(self) -> None:
        """A clean stop: drain, the last words of the slots, checkpoint both files."""
        for _ in range(_DRAIN_ROUNDS):
            if not self.commit_round(tick=True):
                break
            self._world.crowd.leavers_act()
        self.checkpoint()
        self._world.crowd.leavers_act()
        self.is_open = False
