"""The disk of the model as real files: what the model recovers from, keyop can be made to recover from as well.

A cell of a segment becomes so many bytes; offsets grow with it. A frame is as long as it is; where cells of it are
missing, so are bytes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from keyop.protocol import entry
from keyop.storage import journal, journal_file
from keyop.storage.directory import DataDirectory as RealDirectory
from keyop.storage.frame import HEADER_BYTES, compose, padded
from keyop.storage.offsets import format_offset
from keyop.storage.segments import list_segments, segment_name
from torturing.models.commit_path.channel import segments_of
from torturing.models.commit_path.cursors import OffsetFile
from torturing.models.commit_path.data import DataDirectory
from torturing.models.commit_path.disk import File
from torturing.models.commit_path.entries import Append, CursorState, Entry, Forgotten
from torturing.models.commit_path.journal import Frame, Header
from torturing.models.commit_path.line import Cell, Line

CELL_BYTES = 64
_FREE_BYTES = 4096
_CODES = ("", "granted", "busy", "stale", "not held", "wrong", "spill damaged")


def line_bytes(line: Line) -> bytes:
    """An envelope of the line's length; those of different lines differ in many bytes."""
    head, tail = f'{{"v":1,"n":"{line.name}","p":"'.encode(), b'"}\n'
    room = line.length * CELL_BYTES - len(head) - len(tail)
    filler = sha256(line.name.encode()).hexdigest().encode()
    return head + (filler * (room // len(filler) + 1))[:room] + tail


def cells_bytes(cells: Sequence[Cell]) -> bytes:
    """What a segment or a spill file holds."""
    parts = []
    for cell in cells:
        if cell is None:
            parts.append(bytes(CELL_BYTES))
        else:
            line, place = cell
            assert type(line) is Line
            parts.append(line_bytes(line)[place * CELL_BYTES : (place + 1) * CELL_BYTES])
    return b"".join(parts)


def render(disk: DataDirectory, path: Path) -> RealDirectory:
    """Make a data directory of it."""
    real = RealDirectory(path)
    real.make()
    for channel in disk.channels.names:
        real.channel(str(channel)).mkdir()
        for start, file in segments_of(disk.channels.directory(str(channel))):
            name = segment_name(start * CELL_BYTES)
            (real.channel(str(channel)) / name).write_bytes(cells_bytes(file.cells))
    for channel in disk.subscribers.names:
        directory = disk.subscribers.directory(str(channel))
        assert directory is not None
        real.offsets(str(channel)).mkdir()
        for id in directory.names:
            real.offset_file(str(channel), str(id)).write_bytes(_offset_bytes(directory.file(id)))
    for name in disk.spill.names:
        file_or_none = disk.spill.file(name)
        assert file_or_none is not None
        (real.spill / str(name)).write_bytes(cells_bytes(file_or_none.cells))
    for name, real_name in zip(("a", "b"), journal.NAMES, strict=True):
        file_or_none = disk.journal.file(name)
        if file_or_none is not None:
            (real.journal / real_name).write_bytes(_journal_bytes(file_or_none))
    return real


def _offset_bytes(file: File | None) -> bytes:
    cell = file.cells[0] if file is not None and file.cells else None
    return format_offset(cell[0].value * CELL_BYTES) if cell is not None and type(cell[0]) is OffsetFile else b""


# ---- the journal


def _journal_bytes(file: File) -> bytes:
    parts = []
    salt = None
    for cell in file.cells[:2]:
        sector = bytes(journal_file.SECTOR_BYTES)
        if cell is not None and type(cell[0]) is Header:
            salt = cell[0].salt
            sector = journal_file.header(_real_salt(salt), cell[0].first)[: journal_file.SECTOR_BYTES]
        parts.append(sector)
    behind = 2
    for start, frame in _frames(file, salt):
        parts.append(bytes((start - behind) * CELL_BYTES))
        parts.append(_frame_bytes(frame, file.cells[start : start + frame.length]))
        behind = start + frame.length
    return b"".join(parts) + bytes(_FREE_BYTES)


def _frames(file: File, salt: int | None) -> list[tuple[int, Frame]]:
    """Those of the present use, whole or not, by their places."""
    found: dict[int, Frame] = {}
    for at, cell in enumerate(file.cells):
        if cell is not None and type(cell[0]) is Frame and cell[0].salt == salt:
            found[at - cell[1]] = cell[0]
    return sorted(found.items())


def _frame_bytes(frame: Frame, there: Sequence[Cell]) -> bytes:
    entries = [_entry_bytes(item) for item in frame.entries]
    whole = bytearray(compose(_real_salt(frame.salt), frame.number, frame.synced, entries))
    at = 0
    for place, length in enumerate([HEADER_BYTES, *map(len, entries)]):
        if there[place] != (frame, place):
            whole[at : at + length] = bytes(length)
        at += length
    assert len(whole) == padded(at)
    return bytes(whole)


def _real_salt(salt: int) -> int:
    return salt * 2 + 1


def _entry_bytes(item: Entry) -> bytes:
    if type(item) is Append:
        channel, value = item.channel.encode(), item.offset * CELL_BYTES
        flags = entry.STARTS_SEGMENT if item.starts_segment else 0
        data = cells_bytes(item.cells)
        if item.spill is None:
            return entry.encode(entry.APPEND, channel, flags=flags, value=value, data=data)
        reference = entry.SPILL_REFERENCE.pack(item.spill.at * CELL_BYTES, len(data), crc32(data))
        return entry.encode(entry.SPILLED, channel, item.spill.name.encode(), flags=flags, value=value, data=reference)
    if type(item) is CursorState:
        state = entry.CURSOR_STATE.pack(item.moves, item.attempts_offset * CELL_BYTES, item.attempts)
        flags = entry.EXACTLY_ONCE if item.exactly_once else 0
        key = [name.encode() for name in item.key]
        return entry.encode(entry.CURSOR, *key, flags=flags, value=item.offset * CELL_BYTES, data=state)
    if type(item) is Forgotten:
        return entry.encode(entry.FORGET, *(name.encode() for name in item.key))
    answers = [
        entry.REPLY.pack(answer.position, _CODES.index(answer.code), answer.value[0] if answer.value else 0)
        for answer in item.answers
    ]
    data = entry.POSITION.pack(item.position) + b"".join(answers)
    return entry.encode(entry.RING, value=item.ring, data=data)


# ---- comparing


def differences(disk: DataDirectory, real: RealDirectory) -> list[str]:
    """Where the segments of the model are not those of a real directory."""
    found = []
    channels = {str(name) for name in disk.channels.names} | {path.name for path in real.channels.iterdir()}
    for channel in sorted(channels):
        ours = {
            start * CELL_BYTES: cells_bytes(file.cells) for start, file in segments_of(disk.channels.directory(channel))
        }
        theirs = {segment.start: segment.path.read_bytes() for segment in list_segments(real.channel(channel))[0]}
        if ours != theirs:
            found.append(f"{channel}: the model has {_shape(ours)}, keyop {_shape(theirs)}")
    return found


def _shape(segments: dict[int, bytes]) -> str:
    """Starts and lines, in cells."""
    lines = {start // CELL_BYTES: [_name(line) for line in data.split(b"\n")] for start, data in segments.items()}
    return str(lines)


def _name(line: bytes) -> str:
    _, _, rest = line.partition(b'"n":"')
    return (rest.partition(b'"')[0] or line[:10]).decode(errors="replace")
