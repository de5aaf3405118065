"""Transactions too large for a ring: their publisher wrote and synced them to a file, and the ring names it."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from keyop import entry, reply
from keyop.storage import disk
from keyop.writer.refused import Refused, Wait


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

    def load(self, record: bytes) -> Spill:
        """Read the file that a ring record names. Raises `Refused` and `Wait`."""
        length, check = entry.SPILL_RECORD.unpack_from(record)
        name = record[entry.SPILL_RECORD.size :]
        if b"/" in name or name.startswith(b"."):
            raise Refused(reply.MALFORMED)
        try:
            data = (self._directory / name.decode()).read_bytes()
        except FileNotFoundError as error:
            raise Refused(reply.SPILL_DAMAGED) from error
        except OSError as error:
            raise Wait(error) from error
        if len(data) != length or crc32(data) != check:
            raise Refused(reply.SPILL_DAMAGED)
        return Spill(name, data)

    def remove(self, names: set[bytes]) -> None:
        """Remove files that no live frame names any more."""
        for name in names:
            disk.unlink(self._directory / name.decode())

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
