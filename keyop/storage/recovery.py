"""Making the files whole after a crash: what the journal says is written to the segments again.

Where the journal speaks it is the truth, whatever stands in a segment: a power cut may leave zeros or an older length.
One exception: whole lines of another program stay, and what the journal holds follows directly behind them. Nothing
else is ever deleted; only the torn rest of a last line is cut. Recovery may itself be killed at every step and begin
again, as nothing here frees the journal: the caller does, when the positions of rings and cursors are handed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from keyop.protocol import entry
from keyop.storage import disk
from keyop.storage.deletion import put_away
from keyop.storage.directory import DataDirectory
from keyop.storage.file_system import FileSystem
from keyop.storage.frame import Frame
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import FIRST_FRAME_BYTES, JournalContents
from keyop.storage.replay import ChannelReplay, Run


class RecoveredCursor(NamedTuple):
    """A cursor as the last frame that names it has it."""

    moves: int
    offset: int
    attempts_offset: int
    attempts: int
    flags: int


class Recovered:
    """What a recovery found. ``notes`` are sentences for the log; each says what was lost or moved."""

    def __init__(self) -> None:
        self.clean = True
        self.frames = 0
        self.notes: list[str] = []
        # Why the journal ends where it does, if a frame was begun there.
        self.torn = ""
        # Of an id whose work several processes share there are several: one for each part.
        self.cursors: dict[tuple[bytes, bytes], tuple[RecoveredCursor, ...]] = {}
        self.rings: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
        self.ends: dict[bytes, int] = {}
        self.conflicts: dict[bytes, int] = {}
        self.touched: set[Path] = set()
        # Channels that were deleted; what they have now is of new ones.
        self.deleted: set[bytes] = set()
        # The journal's files that owe something, the older first.
        self.live: list[Path] = []
        # Spill files that frames name: nobody needs them once the journal is freed.
        self.spills: set[bytes] = set()

    def cap(self, channel: bytes, offset: int) -> int:
        """An offset of this channel, moved back to where it may stand: the end, or before a foreign run."""
        limit = self.conflicts.get(channel, offset)
        return min(offset, limit, self.ends.get(channel, offset))


def recover(directory: DataDirectory) -> Recovered:
    """Replay the journal into the segments. Syncs what it touched; frees nothing. Raises `OSError`."""
    result = Recovered()
    contents = [JournalContents(path) for name in NAMES if (path := directory.journal / name).exists()]
    live = sorted((file for file in contents if file.live), key=lambda file: file.first_sequence)
    for file in contents:
        if not file.live:
            file.store()
    if not live:
        return result
    result.clean = False
    result.live = [file.path for file in live]
    frames = whole_run(live, result)
    for file in live:
        file.store()
        disk.step("recovery.journal_synced")
    runs: dict[bytes, list[Run]] = {}
    file_system = FileSystem(directory)
    try:
        for frame in frames:
            _collect(frame, runs, directory, result)
        result.frames = len(frames)
        for channel, channel_runs in runs.items():
            ChannelReplay(directory.channel(channel.decode()), channel, result).replay(channel_runs)
        file_system.sync(result.touched)
    finally:
        file_system.close()
    disk.step("recovery.applied")
    return result


def free_journal(recovered: Recovered) -> None:
    """Zero the headers of the live files, the older first: from here on the journal owes nothing. Raises `OSError`.

    May be called again then: a file that reads as free is not free on the device where the sync has failed.
    """
    for path in recovered.live:
        fd = disk.open_file(path, os.O_RDWR)
        try:
            disk.write_at(fd, bytes(FIRST_FRAME_BYTES), 0)
            disk.step("recovery.zeroed")
            disk.sync_data(fd)
        finally:
            os.close(fd)


# ---- which frames count


def whole_run(live: list[JournalContents], result: Recovered) -> list[Frame]:
    """The frames in order, up to the torn end.

    A hole is no torn end if a later frame proves that what is missing had been synced: then only that is lost.
    """
    frames = [frame for file in live for frame in file.frames]
    proven = max((frame.synced for frame in frames), default=0)
    expected = live[0].first_sequence
    for number, frame in enumerate(frames):
        if frame.sequence != expected:
            if proven >= frame.sequence - 1:
                result.notes.append(f"journal frames {expected} to {frame.sequence - 1} are damaged and lost")
            else:
                if proven >= expected:
                    result.notes.append(f"journal frames {expected} to {proven} are damaged and lost")
                    expected = proven + 1
                result.torn = (
                    f"journal frames from {expected} on do not count: the first of them is torn or damaged, and none "
                    "says that they were synced"
                )
                return frames[:number]
        expected = frame.sequence + 1
    if proven >= expected:
        result.notes.append(f"journal frames {expected} to {proven} are damaged and lost")
    elif live[-1].torn:
        result.torn = f"journal frame {expected}, the last one, is torn or damaged and does not count"
    return frames


# ---- what they say


def _collect(frame: Frame, runs: dict[bytes, list[Run]], directory: DataDirectory, result: Recovered) -> None:
    for item in frame.entries():
        if item.kind in (entry.APPEND, entry.SPILLED):
            data = item.data if item.kind == entry.APPEND else _spilled(item, directory, result)
            if data is not None:
                _add_run(runs.setdefault(item.channel, []), item, data)
        elif item.kind in (entry.CURSOR, entry.PARTS):
            _take_cursors(item, result)
        elif item.kind == entry.RING:
            _add_ring(item, result)
        elif item.kind == entry.FORGET:
            result.cursors.pop((item.channel, item.id), None)
            channel, id = os.fsdecode(item.channel), os.fsdecode(item.id)
            _forget(directory.offset_file(channel, id), result)
            _forget(directory.parts_file(channel, id), result)
        elif item.kind == entry.DELETE:
            runs.pop(item.channel, None)
            for key in [key for key in result.cursors if key[0] == item.channel]:
                del result.cursors[key]
            result.deleted.add(item.channel)
            put_away(directory, os.fsdecode(item.channel), item.value)


def _take_cursors(item: entry.Entry, result: Recovered) -> None:
    """The highest count of moves is the truth; another number of parts begins anew."""
    if item.kind == entry.CURSOR:
        moves, attempts_offset, attempts = entry.CURSOR_STATE.unpack(item.data)
        found = [RecoveredCursor(moves, item.value, attempts_offset, attempts, item.flags)]
    else:
        found = [
            RecoveredCursor(moves, offset, attempts_offset, attempts, item.flags)
            for offset, moves, attempts_offset, attempts in entry.PART_STATE.iter_unpack(item.data)
        ]
    known = result.cursors.get((item.channel, item.id), ())
    if len(known) == len(found):
        found = [new if new.moves >= old.moves else old for old, new in zip(known, found, strict=True)]
    result.cursors[item.channel, item.id] = tuple(found)


def _forget(path: Path, result: Recovered) -> None:
    try:
        disk.unlink(path)
    except OSError as error:
        if error.errno in disk.WAIT_ERRNOS:
            raise
        result.notes.append(f"{path}: cannot be removed: {error.strerror}")
    if path.parent.is_dir():
        result.touched.add(path.parent)


def _add_run(runs: list[Run], item: entry.Entry, data: bytes) -> None:
    starts = bool(item.flags & entry.STARTS_SEGMENT)
    if runs and not starts and runs[-1].offset + len(runs[-1].data) == item.value:
        runs[-1].data += data
    else:
        runs.append(Run(item.value, data, starts))


def _add_ring(item: entry.Entry, result: Recovered) -> None:
    (position,) = entry.POSITION.unpack_from(item.data)
    replies = [
        entry.REPLY.unpack_from(item.data, at) for at in range(entry.POSITION.size, len(item.data), entry.REPLY.size)
    ]
    all_replies = result.rings.get(item.value, (0, []))[1]
    all_replies += replies
    result.rings[item.value] = (position, all_replies)


def _spilled(item: entry.Entry, directory: DataDirectory, result: Recovered) -> bytes | None:
    at, length, check = entry.SPILL_REFERENCE.unpack(item.data)
    result.spills.add(item.id)
    path = directory.spill / os.fsdecode(item.id)
    try:
        with path.open("rb") as file:
            file.seek(at)
            data = file.read(length)
    except OSError as error:
        if error.errno in disk.WAIT_ERRNOS:
            raise
        data = b""
        result.notes.append(f"{path}: {error.strerror}")
    if len(data) != length or crc32(data) != check:
        result.notes.append(
            f"{length} bytes of channel {item.channel.decode()} at offset {item.value} are lost with {path}"
        )
        return None
    return data
