"""The attempts begun that a writer notes for the next one, in `run/attempts`: the journal that held them is freed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from keyop.storage import disk
from keyop.writer.cursor import Cursor
from keyop.writer.log import Log

Name = tuple[bytes, bytes]
"""Channel and id; of one of several parts the id with part and number of parts behind it, as in ``id/2/4``."""


class Attempts:
    """What stands in the file, and what an earlier writer has noted there and nobody has asked for yet."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path = path
        self._earlier = _read(path, log)
        self._data = b""

    def take(self, cursor: Cursor) -> None:
        """Give a cursor what was noted of it, unless it has moved on since."""
        offset, attempts = self._earlier.pop(_name(cursor), (-1, 0))
        if offset >= cursor.offset:
            cursor.attempts_offset, cursor.attempts = offset, attempts

    def drop(self, cursor: Cursor) -> None:
        """The journal knows better."""
        self._earlier.pop(_name(cursor), None)

    def drop_channel(self, channel: bytes) -> None:
        """The channel was deleted."""
        self._earlier = {name: noted for name, noted in self._earlier.items() if name[0] != channel}

    def note(self, cursors: Iterable[Cursor]) -> bool:
        """Put together what the file is to say; whether that is worth a file."""
        lines = [_line(_name(cursor), cursor.attempts_offset, cursor.attempts) for cursor in cursors if cursor.attempts]
        lines += [_line(name, offset, attempts) for name, (offset, attempts) in self._earlier.items()]
        self._data = b"".join(lines)
        return bool(lines) or self.path.exists()

    def write(self) -> None:
        """Bring it into the file. Raises `OSError`."""
        draft = self.path.with_name(".attempts.new")
        fd = disk.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            disk.write_at(fd, self._data, 0)
        finally:
            os.close(fd)
        disk.rename(draft, self.path)


def _name(cursor: Cursor) -> Name:
    channel, id = cursor.subscriber.key
    count = len(cursor.subscriber.cursors)
    return channel, id if count == 1 else b"%b/%d/%d" % (id, cursor.part + 1, count)


def _line(name: Name, offset: int, attempts: int) -> bytes:
    """Its last field is a CRC-32 of what is before: a damaged digit must not have a message given up too early."""
    fields = b"\t".join((*name, b"%d" % offset, b"%d" % attempts))
    return b"%b\t%08x\n" % (fields, crc32(fields))


def _read(path: Path, log: Log) -> dict[Name, tuple[int, int]]:
    """What `write` wrote; a damaged line is passed over, it costs a few repeated attempts."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    found = {}
    damaged = 0
    for line in data.splitlines(keepends=True):
        fields = line.split(b"\t")
        if len(fields) == 5 and fields[2].isdigit() and fields[3].isdigit():
            name, offset, attempts = (fields[0], fields[1]), int(fields[2]), int(fields[3])
            if _line(name, offset, attempts) == line:
                found[name] = (offset, attempts)
                continue
        damaged += 1
    if damaged:
        log.warning("attempts_damaged", file=path, lines=damaged)
    return found
