"""The writer's table of subscribers: where each of them stands, who holds it, and what its offset file says."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from keyop.ipc.slot import Slot
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset, write_parts
from keyop.storage.offsets import list_offsets
from keyop.storage.parts import PARTS_SUFFIX, read_parts
from keyop.storage.recovery import RecoveredCursor
from keyop.writer.attached import AttachedPort
from keyop.writer.attempts import Attempts
from keyop.writer.cursor import Cursor, Key, Subscriber
from keyop.writer.log import Log


class Cursors:
    """All subscribers, and positions of peers, that were used since the writer started."""

    def __init__(self, directory: DataDirectory, log: Log) -> None:
        self.by_key: dict[Key, Subscriber] = {}
        self.held: set[Cursor] = set()
        self.unfiled: set[Subscriber] = set()
        self.unsynced_files: set[Path] = set()
        self.unsynced_directories: set[Path] = set()
        self._directory = directory
        self._log = log
        self._complained: set[Path] = set()
        self._forgotten: set[Path] = set()
        # Files are written by the commit thread, and once more by the checkpoint's.
        self._writing = threading.Lock()
        self._attempts = Attempts(directory.run / "attempts", log)

    def path(self, key: Key) -> Path:
        """The offset file of a subscriber."""
        return self._directory.offset_file(os.fsdecode(key[0]), os.fsdecode(key[1]))

    def find(self, key: Key, part: int) -> Cursor | None:
        """The cursor of a part, if there is one of this number now."""
        subscriber = self.by_key.get(key)
        return subscriber.cursors[part] if subscriber is not None and part < len(subscriber.cursors) else None

    def add(self, key: Key, offsets: Sequence[int]) -> Subscriber:
        """Put a subscriber into the table, with the attempts that an earlier writer noted."""
        subscriber = Subscriber(key, self.path(key), offsets)
        for cursor in subscriber.cursors:
            self._attempts.take(cursor)
        self.by_key[key] = subscriber
        return subscriber

    def restore(self, key: Key, recovered: Sequence[RecoveredCursor]) -> Subscriber:
        """Put a subscriber into the table as the journal has it."""
        subscriber = Subscriber(key, self.path(key), [each.offset for each in recovered])
        subscriber.flags = recovered[0].flags
        for cursor, each in zip(subscriber.cursors, recovered, strict=True):
            self._attempts.drop(cursor)
            cursor.moves = each.moves
            cursor.attempts_offset, cursor.attempts = each.attempts_offset, each.attempts
        self.by_key[key] = subscriber
        self.unfiled.add(subscriber)
        return subscriber

    def divide(self, subscriber: Subscriber, count: int) -> Subscriber:
        """Put another number of parts into its place, all of them where the least was."""
        least = min(subscriber.cursors, key=lambda cursor: (cursor.planned, -cursor.attempts))
        divided = Subscriber(subscriber.key, subscriber.path, [least.planned] * count)
        # What stood in slots of an earlier division counts no more.
        moves = max(cursor.moves for cursor in subscriber.cursors)
        for cursor in divided.cursors:
            cursor.moves = moves
            if least.attempts_offset == least.planned:
                # Whose part the message is nobody here knows; it is the only one that will look.
                cursor.attempts = least.attempts
        self.by_key[subscriber.key] = divided
        self.unfiled.discard(subscriber)
        return divided

    def cap(self, channel: bytes, end: int) -> None:
        """Bring offset files that stand beyond the end of a channel back to it. Raises `OSError` of a failing disk.

        A restored copy or a damaged last line makes a channel shorter than its subscribers know it. When it has grown
        past them again, they would go on in the middle of what they have not seen.
        """
        directory = self._directory.offsets(os.fsdecode(channel))
        try:
            for id, parsed in list_offsets(directory):
                key = (channel, os.fsencode(id))
                if parsed.damaged or key in self.by_key:
                    continue
                parts_path = self.path(key).with_suffix(PARTS_SUFFIX)
                parts = read_parts(parts_path)
                if parts is not None and any(offset > end for offset in parts.offsets):
                    self._log.warning("parts_moved", file=parts_path, new=end, why="past the end")
                    write_parts(parts_path, [min(offset, end) for offset in parts.offsets])
                    disk.sync_path(parts_path)
                if parsed.value > end:
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

    # ---- files

    def forget(self, subscriber: Subscriber) -> None:
        """Delete a subscriber's offset."""
        for cursor in subscriber.cursors:
            self.let_go(cursor)
        self.unfiled.discard(subscriber)
        self.by_key.pop(subscriber.key, None)
        paths = (subscriber.path, subscriber.parts_path)
        self.unsynced_files.difference_update(paths)
        self._forgotten.update(paths)
        try:
            self.remove_forgotten()
        except OSError:
            pass  # before anybody may have that id again, and before the journal is freed

    def drop_channel(self, channel: bytes) -> list[Cursor]:
        """Drop the cursors of a channel that is deleted, with its directory; which of them were held."""
        directory = self._directory.offsets(os.fsdecode(channel))
        dropped = [subscriber for key, subscriber in self.by_key.items() if key[0] == channel]
        for subscriber in dropped:
            del self.by_key[subscriber.key]
        self.unfiled.difference_update(dropped)
        self.unsynced_files -= {path for path in self.unsynced_files if path.parent == directory}
        self._forgotten -= {path for path in self._forgotten if path.parent == directory}
        self._attempts.drop_channel(channel)
        return [cursor for subscriber in dropped for cursor in subscriber.cursors if cursor.holder is not None]

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
        for subscriber in list(self.unfiled):
            try:
                self._file_one(subscriber)
            except OSError as error:
                if error.errno in disk.WAIT_ERRNOS:
                    trouble = error
                    continue
                self._complain(subscriber.path, error)
            self.unfiled.discard(subscriber)
        return trouble

    def _complain(self, path: Path, error: OSError) -> None:
        if path not in self._complained:
            self._complained.add(path)
            self._log.error("offset_not_filed", file=path, why=error.strerror)

    def _file_one(self, subscriber: Subscriber) -> None:
        offsets = tuple(cursor.offset for cursor in subscriber.cursors)
        if subscriber.filed == offsets:
            return
        if not subscriber.filed:
            parent = subscriber.path.parent
            if not os.path.isdir(parent):
                disk.make_directory(parent)
            # Also where both are there: who made them was perhaps killed before they were synced.
            self.unsynced_directories.update((self._directory.subscribers, parent))
            if len(offsets) == 1 and subscriber.parts_path.exists():
                disk.unlink(subscriber.parts_path)
        with self._writing:
            if len(offsets) > 1:
                write_parts(subscriber.parts_path, offsets)
                self.unsynced_files.add(subscriber.parts_path)
            write_offset(subscriber.path, min(offsets))
            subscriber.filed = offsets
        self.unsynced_files.add(subscriber.path)

    def write_again(self, path: Path) -> None:
        """After a failed sync: bring a file's bytes into it once more, from memory. Raises `OSError`.

        To read them back would not do: the kernel may have dropped them, and the file reads as the device has it.
        Called in the checkpoint's thread.
        """
        with self._writing:
            if path == self._attempts.path:
                self._attempts.write()
                return
            subscriber = self.by_key.get((os.fsencode(path.parent.name), os.fsencode(path.stem)))
            if subscriber is None or not subscriber.filed:
                return
            if path == subscriber.path:
                write_offset(path, min(subscriber.filed))
            elif len(subscriber.filed) > 1:
                write_parts(path, subscriber.filed)

    def refile_unsynced(self) -> None:
        """What was written and is not known to be synced is written again by the next `file`."""
        for subscriber in self.by_key.values():
            if not self.unsynced_files.isdisjoint((subscriber.path, subscriber.parts_path)):
                subscriber.filed = ()
                self.unfiled.add(subscriber)

    def file_attempts(self) -> None:
        """Note the attempts begun, for the next writer: the journal that holds them is about to be freed."""
        with self._writing:
            cursors = (cursor for subscriber in self.by_key.values() for cursor in subscriber.cursors)
            if not self._attempts.note(cursors):
                return
            self._attempts.write()
        self.unsynced_files.add(self._attempts.path)
        self.unsynced_directories.add(self._attempts.path.parent)
