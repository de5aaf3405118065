"""The writer's table of cursors: where every subscriber stands, who holds it, and what its offset file says.

A cursor carries a count of its moves, in the subscriber's slot, here, in transactions and in frames alike. The highest
count is the truth, and the file where none of them names the cursor.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from zlib import crc32

from keyop.ipc.slot import Slot, SlotCursor
from keyop.protocol import entry
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import list_offsets
from keyop.storage.recovery import RecoveredCursor
from keyop.writer.attached import AttachedPort
from keyop.writer.log import Log

Key = tuple[bytes, bytes]


class Cursor:
    """One subscriber of one channel. ``planned`` is where the round under way leaves it."""

    __slots__ = (
        "attempts",
        "attempts_offset",
        "filed",
        "flags",
        "holder",
        "key",
        "moves",
        "offset",
        "path",
        "planned",
        "slot",
        "taken_up",
    )

    def __init__(self, key: Key, path: Path, offset: int) -> None:
        self.key = key
        self.path = path
        self.offset = offset
        self.planned = offset
        self.moves = 0
        # Attempts begun at the message under way. Of an exactly-once subscriber that may lie beyond the cursor.
        self.attempts_offset = offset
        self.attempts = 0
        self.flags = 0
        self.filed = -1
        self.holder: AttachedPort | None = None
        self.slot: Slot | None = None
        # Its holder was found in his slot when this writer started.
        self.taken_up = False

    @property
    def exactly_once(self) -> bool:
        """Whether its place is decided here, by transactions, and not in the subscriber's slot."""
        return bool(self.flags & entry.EXACTLY_ONCE)

    def frame_entry(self) -> bytes:
        """The cursor as a frame holds it."""
        state = entry.CURSOR_STATE.pack(self.moves, self.attempts_offset, self.attempts)
        return entry.encode(entry.CURSOR, *self.key, flags=self.flags, value=self.planned, data=state)

    def adopt(self, claim: SlotCursor) -> bool:
        """Take over what the slot says if it has moved; whether it has."""
        if claim.moves <= self.moves:
            return False
        self.moves = claim.moves
        self.attempts_offset, self.attempts = claim.offset, claim.attempts
        if not self.exactly_once:
            self.planned = claim.offset
        return True


class Cursors:
    """All cursors that were used since the writer started."""

    def __init__(self, directory: DataDirectory, log: Log) -> None:
        self.by_key: dict[Key, Cursor] = {}
        self.held: set[Cursor] = set()
        self.unfiled: set[Cursor] = set()
        self.unsynced_files: set[Path] = set()
        self.unsynced_directories: set[Path] = set()
        self._directory = directory
        self._log = log
        self._complained: set[Path] = set()
        self._forgotten: set[Path] = set()
        # Files are written by the commit thread, and once more by the checkpoint's.
        self._writing = threading.Lock()
        self._attempts = b""
        self._attempts_path = directory.run / "attempts"
        self._earlier_attempts = _read_attempts(self._attempts_path, log)

    def path(self, key: Key) -> Path:
        """The offset file of a cursor."""
        return self._directory.offset_file(os.fsdecode(key[0]), os.fsdecode(key[1]))

    def add(self, key: Key, offset: int) -> Cursor:
        """Put a cursor into the table, with the attempts that an earlier writer noted."""
        cursor = Cursor(key, self.path(key), offset)
        earlier_offset, attempts = self._earlier_attempts.pop(key, (-1, 0))
        if earlier_offset >= offset:
            cursor.attempts_offset, cursor.attempts = earlier_offset, attempts
        self.by_key[key] = cursor
        return cursor

    def restore(self, key: Key, recovered: RecoveredCursor) -> Cursor:
        """Put a cursor into the table as the journal has it."""
        self._earlier_attempts.pop(key, None)
        cursor = Cursor(key, self.path(key), recovered.offset)
        cursor.moves = recovered.moves
        cursor.attempts_offset, cursor.attempts = recovered.attempts_offset, recovered.attempts
        cursor.flags = recovered.flags
        self.by_key[key] = cursor
        self.unfiled.add(cursor)
        return cursor

    def cap(self, channel: bytes, end: int) -> None:
        """Bring offset files that stand beyond the end of a channel back to it. Raises `OSError` of a failing disk.

        A restored copy or a damaged last line makes a channel shorter than its subscribers know it. When it has grown
        past them again, they would go on in the middle of what they have not seen.
        """
        directory = self._directory.offsets(os.fsdecode(channel))
        try:
            for id, parsed in list_offsets(directory):
                key = (channel, os.fsencode(id))
                if parsed.value > end and not parsed.damaged and key not in self.by_key:
                    self._log.warning(
                        "offset_moved", file=self.path(key), old=parsed.value, new=end, why="past the end"
                    )
                    write_offset(self.path(key), end)
                    disk.sync_path(self.path(key))
                    disk.sync_path(directory)
        except OSError as error:
            if error.errno in disk.WAIT_ERRNOS:
                raise
            self._complain(directory, error)

    def hold(self, cursor: Cursor, port: AttachedPort, slot: Slot) -> None:
        """A process has opened the subscription."""
        cursor.holder = port
        cursor.slot = slot
        cursor.taken_up = False
        self.held.add(cursor)

    def let_go(self, cursor: Cursor) -> None:
        """Its process closed it, or died."""
        cursor.holder = None
        cursor.slot = None
        self.held.discard(cursor)

    def moved(self) -> list[Cursor]:
        """The held cursors whose slots have moved since the last look, with their new places planned."""
        moved = []
        for cursor in self.held:
            assert cursor.slot is not None
            claim = cursor.slot.cursor()
            if claim is not None and cursor.adopt(claim):
                moved.append(cursor)
        return moved

    def forget(self, cursor: Cursor) -> None:
        """Delete a subscriber's offset."""
        self.let_go(cursor)
        self.unfiled.discard(cursor)
        self.unsynced_files.discard(cursor.path)
        self.by_key.pop(cursor.key, None)
        self._forgotten.add(cursor.path)
        try:
            self.remove_forgotten()
        except OSError:
            pass  # before anybody may have that id again, and before the journal is freed

    def remove_forgotten(self) -> None:
        """Remove the files of all that was forgotten. Raises `OSError` of a failing disk: they are still there then."""
        for path in list(self._forgotten):
            try:
                with self._writing:
                    disk.unlink(path)
            except OSError as error:
                if error.errno in disk.WAIT_ERRNOS:
                    raise
                self._complain(path, error)
            self._forgotten.discard(path)
            self.unsynced_directories.add(path.parent)

    def file(self) -> OSError | None:
        """Write the offset files that are behind; the last error of a full or failing disk: then try again.

        One that cannot be a file at all (a directory has its name, no permission) is reported and left: it costs its
        subscriber repeated messages, and nobody else anything.
        """
        trouble = None
        try:
            self.remove_forgotten()
        except OSError as error:
            trouble = error
        for cursor in list(self.unfiled):
            try:
                self._file_one(cursor)
            except OSError as error:
                if error.errno in disk.WAIT_ERRNOS:
                    trouble = error
                    continue
                self._complain(cursor.path, error)
            self.unfiled.discard(cursor)
        return trouble

    def _complain(self, path: Path, error: OSError) -> None:
        if path not in self._complained:
            self._complained.add(path)
            self._log.error("offset_not_filed", file=path, why=error.strerror)

    def _file_one(self, cursor: Cursor) -> None:
        if cursor.filed == cursor.offset:
            return
        if cursor.filed < 0:
            parent = cursor.path.parent
            if not os.path.isdir(parent):
                disk.make_directory(parent)
            # Also where both are there: who made them was perhaps killed before they were synced.
            self.unsynced_directories.update((self._directory.subscribers, parent))
        with self._writing:
            write_offset(cursor.path, cursor.offset)
            cursor.filed = cursor.offset
        self.unsynced_files.add(cursor.path)

    def write_again(self, path: Path) -> None:
        """After a failed sync: bring a file's bytes into it once more, from memory. Raises `OSError`.

        To read them back would not do: the kernel may have dropped them, and the file reads as the device has it.
        Called in the checkpoint's thread.
        """
        with self._writing:
            if path == self._attempts_path:
                self._write_attempts()
                return
            cursor = self.by_key.get((os.fsencode(path.parent.name), os.fsencode(path.stem)))
            if cursor is not None and cursor.filed >= 0:
                write_offset(path, cursor.filed)

    def refile_unsynced(self) -> None:
        """What was written and is not known to be synced is written again by the next `file`."""
        for cursor in self.by_key.values():
            if cursor.path in self.unsynced_files:
                cursor.filed = -1
                self.unfiled.add(cursor)

    def file_attempts(self) -> None:
        """Note the attempts begun, for the next writer: the journal that holds them is about to be freed."""
        lines = [
            _attempts_line(cursor.key, cursor.attempts_offset, cursor.attempts)
            for cursor in self.by_key.values()
            if cursor.attempts
        ]
        lines += [_attempts_line(key, offset, attempts) for key, (offset, attempts) in self._earlier_attempts.items()]
        if not lines and not self._attempts_path.exists():
            return
        with self._writing:
            self._attempts = b"".join(lines)
            self._write_attempts()
        self.unsynced_files.add(self._attempts_path)
        self.unsynced_directories.add(self._attempts_path.parent)

    def _write_attempts(self) -> None:
        draft = self._attempts_path.with_name(".attempts.new")
        fd = disk.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            disk.write_at(fd, self._attempts, 0)
        finally:
            os.close(fd)
        disk.rename(draft, self._attempts_path)


def _attempts_line(key: Key, offset: int, attempts: int) -> bytes:
    """Its last field is a CRC-32 of what is before: a damaged digit must not have a message given up too early."""
    fields = b"\t".join((*key, b"%d" % offset, b"%d" % attempts))
    return b"%b\t%08x\n" % (fields, crc32(fields))


def _read_attempts(path: Path, log: Log) -> dict[Key, tuple[int, int]]:
    """What `file_attempts` wrote; a damaged line is passed over, it costs a few repeated attempts."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    found = {}
    damaged = 0
    for line in data.splitlines(keepends=True):
        fields = line.split(b"\t")
        if len(fields) == 5 and fields[2].isdigit() and fields[3].isdigit():
            key, offset, attempts = (fields[0], fields[1]), int(fields[2]), int(fields[3])
            if _attempts_line(key, offset, attempts) == line:
                found[key] = (offset, attempts)
                continue
        damaged += 1
    if damaged:
        log.warning("attempts_damaged", file=path, lines=damaged)
    return found
