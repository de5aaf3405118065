"""The writer's table of cursors, and their offset files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.entries import CursorState, Key
from torturing.models.commit_path.memory import Port, Slot, SlotCursor

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


class Cursor:
    """One subscriber of one channel. ``planned`` is where the round under way leaves it."""

    __slots__ = (
        "attempts",
        "attempts_offset",
        "exactly_once",
        "filed",
        "holder",
        "key",
        "moves",
        "offset",
        "planned",
        "slot",
    )

    def __init__(self, key: Key, offset: int) -> None:
        self.key = key
        self.offset = offset
        self.planned = offset
        self.moves = 0
        self.attempts_offset = offset
        self.attempts = 0
        self.exactly_once = False
        self.filed = -1
        self.holder: Port | None = None
        self.slot: Slot | None = None

    def adopt(self, claim: SlotCursor, *, most_moves_win: bool) -> bool:
        """Take over what the slot says if it has moved."""
        if claim.moves <= self.moves or not (most_moves_win or claim.offset >= self.offset):
            return False
        self.moves = claim.moves
        self.attempts_offset, self.attempts = claim.offset, claim.attempts
        if not self.exactly_once:
            self.planned = claim.offset
        return True


class OffsetFile:
    """What an offset file says, in one cell: nobody sees half of it."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def read_offset(world: World, key: Key) -> int | None:
    """What an offset file says; None if there is none, 0 if it cannot be read."""
    directory = world.disk.subscribers.directory(key[0])
    file = directory.file(key[1]) if directory is not None else None
    if file is None:
        return None
    cell = file.cells[0] if file.cells else None
    return cell[0].value if cell is not None and type(cell[0]) is OffsetFile else 0


def list_offsets(world: World, channel: str) -> dict[str, int]:
    """Every offset file of a channel."""
    directory = world.disk.subscribers.directory(channel)
    if directory is None:
        return {}
    return {str(id): read_offset(world, (channel, str(id))) or 0 for id in directory.names}


def write_offset(directory: Directory, id: str, offset: int) -> File:
    """In place; a new one gets its name when it is written."""
    file = directory.file(id)
    if file is None:
        file = File()
        file.write(0, ((OffsetFile(offset), 0),))
        directory.put(id, file)
    else:
        file.write(0, ((OffsetFile(offset), 0),))
    return file


class Cursors:
    """All cursors that were used since the writer started."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.by_key: dict[Key, Cursor] = {}
        self.unfiled: set[Cursor] = set()
        self.unsynced_files: dict[Key, File] = {}
        self.unsynced_directories: dict[Directory, None] = {}
        self._earlier_attempts = world.disk.read_attempts()

    def add(self, key: Key, offset: int) -> Cursor:
        """Put a cursor into the table, with the attempts that an earlier writer noted."""
        cursor = Cursor(key, offset)
        earlier, attempts = self._earlier_attempts.pop(key, (-1, 0))
        if earlier >= offset:
            cursor.attempts_offset, cursor.attempts = earlier, attempts
        self.by_key[key] = cursor
        return cursor

    def restore(self, state: CursorState, offset: int) -> None:
        """Put a cursor into the table as the journal has it, at the place where it may stand."""
        self._earlier_attempts.pop(state.key, None)
        cursor = Cursor(state.key, offset)
        cursor.moves = state.moves
        cursor.attempts_offset, cursor.attempts = state.attempts_offset, state.attempts
        cursor.exactly_once = state.exactly_once
        self.by_key[state.key] = cursor
        self.unfiled.add(cursor)

    def load(self, key: Key) -> Cursor | None:
        """Bring the cursor of an id that subscribed before into the table."""
        offset = read_offset(self._world, key)
        if offset is None:
            return None
        cursor = self.add(key, offset)
        cursor.filed = offset
        return cursor

    def state(self, cursor: Cursor) -> CursorState:
        """The cursor as a frame has it."""
        attempts = cursor.attempts if self._world.rules.attempts_in_frames else 0
        return CursorState(
            cursor.key, cursor.moves, cursor.planned, cursor.attempts_offset, attempts, cursor.exactly_once
        )

    def moved(self) -> list[Cursor]:
        """The held cursors whose slots have moved since the last look."""
        return [cursor for cursor in self.by_key.values() if self.take_last_word(cursor)]

    def take_last_word(self, cursor: Cursor) -> bool:
        """Take over what its slot says; whether that was news."""
        claim = cursor.slot.cursor if cursor.slot is not None else None
        return claim is not None and cursor.adopt(claim, most_moves_win=self._world.rules.most_moves_win)

    def forget(self, cursor: Cursor) -> None:
        """Delete a subscriber's offset."""
        cursor.holder = cursor.slot = None
        self.unfiled.discard(cursor)
        self.by_key.pop(cursor.key, None)
        self.unsynced_files.pop(cursor.key, None)
        directory = self._world.disk.subscribers.directory(cursor.key[0])
        if directory is not None:
            directory.remove(cursor.key[1])
            self.unsynced_directories[directory] = None

    # ---- files

    def file(self) -> None:
        """Write the offset files that are behind, in place and unsynced."""
        for cursor in sorted(self.unfiled, key=lambda cursor: cursor.key):
            if cursor.filed != cursor.offset:
                self._file_one(cursor)
            self.unfiled.discard(cursor)

    def _file_one(self, cursor: Cursor) -> None:
        world = self._world
        channel, id = cursor.key
        directory = world.disk.subscribers.directory(channel)
        if directory is None:
            directory = Directory()
            world.disk.subscribers.put(channel, directory)
            self.unsynced_directories[world.disk.subscribers] = None
        if directory.file(id) is None:
            world.step("offset.drafted")
            self.unsynced_directories[directory] = None
        file = write_offset(directory, id, cursor.offset)
        cursor.filed = cursor.offset
        self.unsynced_files[cursor.key] = file
        world.say("the offset file of {} says {}", id, cursor.offset)

    def write_again(self, key: Key, file: File) -> None:
        """After a failed sync: from the table, for what the file seems to hold may be older."""
        cursor = self.by_key.get(key)
        if cursor is not None and self._world.rules.offsets_written_again:
            file.write(0, ((OffsetFile(cursor.filed), 0),))

    def file_attempts(self) -> None:
        """Note the attempts begun, for the next writer."""
        if not self._world.rules.attempts_filed:
            return
        attempts = {c.key: (c.attempts_offset, c.attempts) for c in self.by_key.values() if c.attempts}
        self._world.disk.write_attempts({**self._earlier_attempts, **attempts})
