"""The journal: two files used in turn, a frame for each commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torturing.models.commit_path.disk import Directory, File, SyncFailedError
from torturing.models.commit_path.entries import Entry
from torturing.models.commit_path.line import Cell

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

NAMES = ("a", "b")
FILE_CELLS = 22
# Frames that no sync has reached are kept, to be written again; so many force one.
MAX_UNSYNCED = 6
_FIRST_FRAME = 2


class Header:
    """Both copies of it: one cell each."""

    __slots__ = ("cells", "first", "salt")

    def __init__(self, salt: int, first: int) -> None:
        self.salt = salt
        self.first = first
        self.cells: tuple[Cell, ...] = ((self, 0), (self, 1))


class Frame:
    """One commit: a cell for its head, and one for each entry."""

    __slots__ = ("cells", "entries", "length", "number", "salt", "synced")

    def __init__(self, salt: int, number: int, synced: int, entries: list[Entry]) -> None:
        self.salt = salt
        self.number = number
        self.synced = synced
        self.entries = entries
        self.length = 1 + len(entries)
        self.cells: tuple[Cell, ...] = tuple((self, place) for place in range(self.length))


class JournalFile:
    """One of the two files as the writer has it."""

    __slots__ = ("file", "live", "position", "salt")

    def __init__(self, file: File) -> None:
        self.file = file
        self.salt = 0
        self.position = _FIRST_FRAME
        self.live = False

    def room(self) -> int:
        """Cells that are left for frames."""
        return len(self.file) - self.position

    def begin(self, salt: int, first: int) -> Header:
        """A new use of the file."""
        self.salt = salt
        self.position = _FIRST_FRAME
        self.live = True
        return Header(salt, first)

    def grow(self, length: int) -> None:
        """Make room in a file without frames."""
        self.file.write(len(self.file), [None] * (length - len(self.file)))
        self.file.sync()


class Journal:
    """The writer's side."""

    def __init__(self, world: World, directory: Directory) -> None:
        self._world = world
        self._files = [JournalFile(_open(directory, name)) for name in NAMES]
        directory.sync()
        self._current = 0
        self._number = 0
        self.synced = 0
        self._unsynced: list[tuple[JournalFile, int, Frame, tuple[Cell, ...]]] = []

    @property
    def in_use(self) -> bool:
        """Whether the current file holds frames."""
        return self._files[self._current].live

    @property
    def other_is_free(self) -> bool:
        """Whether one may go over to the other file."""
        return not self._files[1 - self._current].live

    @property
    def is_synced(self) -> bool:
        """Whether no frame waits for a sync."""
        return not self._unsynced

    def fits(self, entries: list[Entry]) -> bool:
        """Whether a frame of these has room."""
        return 1 + len(entries) <= self._files[self._current].room()

    def make_room(self, entries: list[Entry]) -> None:
        """Grow the current file, which holds no frame yet."""
        self._files[self._current].grow(_FIRST_FRAME + 1 + len(entries))

    def write(self, entries: list[Entry]) -> Frame:
        """Write one frame; a kill may come in the middle of it."""
        world = self._world
        current = self._files[self._current]
        self._number += 1
        at = current.position
        prefix: tuple[Cell, ...] = ()
        if not current.live:
            salt = world.chance.getrandbits(40) if world.rules.salts else 0
            prefix = current.begin(salt, self._number).cells
            at = 0
        frame = Frame(current.salt, self._number, self.synced, entries)
        world.ledger.note_frame(frame)
        cells = prefix + frame.cells
        half = world.chance.randint(0, len(cells))
        current.file.write(at, cells[:half])
        world.step("half of a frame is written", alone=True)
        current.file.write(at + half, cells[half:])
        current.position = at + len(cells)
        self._unsynced.append((current, at, frame, cells))
        world.say("frame {} is written", frame.number)
        world.step("frame.written")
        if len(self._unsynced) > MAX_UNSYNCED:
            self.sync()
        return frame

    # ---- syncs

    def sync(self) -> None:
        """Bring every frame to the device; not before a sync that is under way has ended."""
        self._world.threads.finish("flush")
        for _ in self.syncing():
            pass

    def syncing(self) -> Iterator[str]:
        """The same in two steps, as another thread does it: commits may come between them."""
        rules = self._world.rules
        pending = list(self._unsynced)
        files = list({id(item[0]): item[0] for item in pending}.values())
        if not rules.left_file_synced:
            files = [self._files[self._current]]
        marks = [item.file.written for item in files]
        if not pending:
            return
        for _ in range(self._world.chance.randint(1, 8)):
            yield "flush.begun"
        if not rules.sync_counts_what_it_began_with:
            pending = list(self._unsynced)
        try:
            for item, mark in zip(files, marks, strict=True):
                self._world.sync(item.file, mark)
        except SyncFailedError:
            self._write_again()
            pending = list(self._unsynced)
        self._world.step("frame.synced")
        self._note_synced(pending)

    def _note_synced(self, pending: list[tuple[JournalFile, int, Frame, tuple[Cell, ...]]]) -> None:
        if not pending:
            return
        del self._unsynced[: len(pending)]
        frames = [item[2] for item in pending]
        self.synced = frames[-1].number
        self._world.say("frames up to {} are synced", self.synced)
        self._world.ledger.note_synced(frames)

    def _write_again(self) -> None:
        """What the failed sync may have dropped, until a sync holds."""
        world = self._world
        while True:
            world.step("a sync of the journal failed")
            try:
                for current, at, _frame, cells in self._unsynced:
                    if world.rules.frames_written_again:
                        current.file.write(at, cells)
                for current in {id(item[0]): item[0] for item in self._unsynced}.values():
                    world.sync(current.file)
            except SyncFailedError:
                continue
            return

    # ---- taking turns

    def switch(self) -> int:
        """Go over to the other file, which is free; the index of the one that was left."""
        if self._world.rules.left_file_synced:
            self.sync()
        left = self._current
        self._current = 1 - left
        self._world.say("the journal goes over to file {}", NAMES[self._current])
        self._world.step("journal.switched")
        return left

    def freeing(self, index: int) -> Iterator[str]:
        """Zero a file's header and sync: it owes nothing any more."""
        item = self._files[index]
        if item.live:
            while True:
                item.file.write(0, (None, None))
                yield "free.zeroed"
                try:
                    self._world.sync(item.file)
                except SyncFailedError:
                    continue
                break
        item.live = False
        self._world.say("journal file {} is free", NAMES[index])
        yield "free.synced"


def _open(directory: Directory, name: str) -> File:
    file = directory.file(name)
    if file is None:
        file = File([None] * FILE_CELLS)
        directory.put(name, file)
    return file


class JournalContents:
    """What one file holds, as found at a start."""

    __slots__ = ("file", "first", "frames", "live", "name")

    def __init__(self, world: World, directory: Directory, name: str) -> None:
        self.name = name
        self.file = _open(directory, name)
        self.frames: list[Frame] = []
        header = _header(self.file)
        self.live = header is not None
        self.first = 0
        if header is not None:
            self.first = header.first
            self._scan(world, header)

    def _scan(self, world: World, header: Header) -> None:
        at = _FIRST_FRAME
        expected = header.first
        while at < len(self.file):
            frame = _parse(world, self.file, at, header.salt)
            if frame is None:
                following = self._search(world, at, header.salt, expected)
                if following is None:
                    return
                at = following
                continue
            self.frames.append(frame)
            expected = frame.number + 1
            at += frame.length

    def _search(self, world: World, at: int, salt: int, expected: int) -> int | None:
        """Behind an invalid frame the next one may begin at any cell."""
        for place in range(at + 1, len(self.file)):
            frame = _parse(world, self.file, place, salt)
            if frame is not None and frame.number > expected:
                return place
        return None


def _header(file: File) -> Header | None:
    for cell in file.cells[:_FIRST_FRAME]:
        if cell is not None and type(cell[0]) is Header:
            return cell[0]
    return None


def _parse(world: World, file: File, at: int, salt: int) -> Frame | None:
    cell = file.cells[at]
    if cell is None or type(cell[0]) is not Frame or cell[1] or cell[0].salt != salt:
        return None
    frame = cell[0]
    there = file.cells[at : at + frame.length]
    if tuple(there) == frame.cells:
        return frame
    if world.rules.whole_frames or len(there) < frame.length:
        return None
    entries = [entry for entry, cell in zip(frame.entries, there[1:], strict=True) if cell and cell[0] is frame]
    half = Frame(salt, frame.number, frame.synced, entries)
    half.length = frame.length
    return half
