"""Transactions too large for a ring: their publisher wrote and synced them to a file, and the ring names it."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

from keyop.protocol import entry, reply
from keyop.storage import disk
from keyop.writer.refused import Full, Refused, Wait

# Spilled transactions are held in memory until they are applied: in one round as much as the largest may have.
MAX_BYTES = 64 << 20


class Spill:
    """A spill file that was read whole."""

    __slots__ = ("data", "name")

    def __init__(self, name: bytes, data: bytes) -> None:
        self.name = name
        self.data = data


class Spills:
    """The directory ``journal/spill``. A file is removed once the journal file whose frame names it is free."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Files that a frame names which is not checkpointed yet.
        self._named: set[bytes] = set()
        # Those that nothing names any more and that could not be removed yet.
        self._left: set[bytes] = set()

    def load(self, record: bytes, room: int) -> Spill:
        """Read the file that a ring record names. Raises `Refused`, `Wait`, and `Full` if it is over ``room``."""
        if len(record) < entry.SPILL_RECORD.size:
            raise Refused(reply.MALFORMED)
        length, check = entry.SPILL_RECORD.unpack_from(record)
        if length > MAX_BYTES:
            raise Refused(reply.MALFORMED)
        if length > room:
            raise Full
        name = record[entry.SPILL_RECORD.size :]
        if not name or b"/" in name or b"\0" in name or name.startswith(b"."):
            raise Refused(reply.MALFORMED)
        try:
            data = (self._directory / os.fsdecode(name)).read_bytes()
        except FileNotFoundError as error:
            raise Refused(reply.SPILL_DAMAGED) from error
        except OSError as error:
            raise Wait(error) from error
        if len(data) != length or crc32(data) != check:
            raise Refused(reply.SPILL_DAMAGED)
        return Spill(name, data)

    def name(self, spills: list[Spill]) -> None:
        """A frame names these."""
        self._named.update(spill.name for spill in spills)

    def remove(self, names: set[bytes]) -> None:
        """Remove files that no live frame names any more; where the disk fails, the next call tries again."""
        self._named -= names
        for name in names | self._left:
            self._remove(name)

    def _remove(self, name: bytes) -> None:
        try:
            disk.unlink(self._directory / os.fsdecode(name))
            self._left.discard(name)
        except OSError as error:
            if error.errno not in disk.WAIT_ERRNOS:
                raise
            self._left.add(name)

    def bury(self, ring_id: int) -> None:
        """Remove what a dead process wrote and no frame names: it was killed before it could hand it over."""
        prefix = f"{ring_id:016x}-"
        try:
            names = os.listdir(self._directory)
        except OSError as error:
            if error.errno not in disk.WAIT_ERRNOS:
                raise
            return  # the next writer's sweep finds them
        for name in names:
            if name.startswith(prefix) and os.fsencode(name) not in self._named:
                self._remove(os.fsencode(name))

    def sweep(self, ring_ids: set[int]) -> None:
        """At a start, with the journal free: remove what belongs to no ring that exists."""
        for path in self._directory.iterdir():
            ring, _, _ = path.name.partition("-")
            try:
                owned = int(ring, 16) in ring_ids
            except ValueError:
                owned = False
            if not owned:
                disk.unlink(path)
