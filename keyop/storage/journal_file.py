"""One of the two files of the journal.

It begins with its header twice, a sector each: a random salt drawn for this use, and the number of its first frame.
The file is free when neither copy is valid; both are zeroed in one write.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from zlib import crc32

from keyop.storage import disk
from keyop.storage.frame import ALIGNMENT_BYTES, Frame, begins, padded, parse

_MAGIC = 0x4C4E_524A_504F_594B
_HEADER = Struct("<QQQ")
_CHECK = Struct("<I")
SECTOR_BYTES = 512
FIRST_FRAME_BYTES = 2 * SECTOR_BYTES


def header(salt: int, first_sequence: int) -> bytes:
    """Both copies of a header."""
    packed = _HEADER.pack(_MAGIC, salt, first_sequence)
    sector = (packed + _CHECK.pack(crc32(packed))).ljust(SECTOR_BYTES, b"\0")
    return sector + sector


def parse_header(buffer: bytes) -> tuple[int, int] | None:
    """Salt and number of the first frame, from whichever copy is valid; None: the file is free."""
    for at in (0, SECTOR_BYTES):
        packed = buffer[at : at + _HEADER.size]
        if len(packed) < _HEADER.size:
            return None
        magic, salt, first_sequence = _HEADER.unpack(packed)
        if magic == _MAGIC and buffer[at + _HEADER.size : at + _HEADER.size + 4] == _CHECK.pack(crc32(packed)):
            return salt, first_sequence
    return None


class JournalFile:
    """An open file of the journal and where it is written next."""

    __slots__ = ("fd", "first_sequence", "path", "position", "salt", "size")

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Open or make the file, filled with zeros up to ``size_bytes``. Raises `OSError`."""
        self.path = path
        self.fd = disk.open_file(path, os.O_RDWR | os.O_CREAT)
        self.salt = 0
        self.first_sequence = 0
        self.position = 0
        self.size = disk.size(self.fd)
        try:
            if parse_header(os.pread(self.fd, FIRST_FRAME_BYTES, 0)) is None:
                self._fill(max(size_bytes, self.size))
        except OSError:
            self.close()
            raise

    @property
    def live(self) -> bool:
        """Whether it holds frames of this use."""
        return self.position > 0

    def begin(self, first_sequence: int) -> bytes:
        """Draw a salt for a new use; the header is returned, to be written together with the first frame."""
        self.salt = int.from_bytes(os.urandom(8), "little") | 1
        self.first_sequence = first_sequence
        self.position = FIRST_FRAME_BYTES
        return header(self.salt, first_sequence)

    def room(self) -> int:
        """Bytes that are left for frames."""
        return self.size - (self.position or FIRST_FRAME_BYTES)

    def free(self) -> None:
        """Zero both headers and sync: from here on the file owes nothing. Raises `OSError`."""
        disk.write_at(self.fd, bytes(FIRST_FRAME_BYTES), 0)
        disk.step("free.zeroed")
        disk.sync_data(self.fd)
        disk.step("free.synced")
        self.position = 0

    def grow(self, size_bytes: int) -> None:
        """Make a free file larger. Raises `OSError`."""
        if size_bytes > self.size:
            self._fill(size_bytes)

    def _fill(self, size_bytes: int) -> None:
        """Write the zeros that are missing. A sparse file (copied, restored) is written anew: it has no blocks."""
        sparse = os.fstat(self.fd).st_blocks * 512 < self.size
        if sparse or self.size < size_bytes:
            try:
                disk.fill_zeros(self.fd, 0 if sparse else self.size, size_bytes)
                os.fsync(self.fd)
            except OSError:
                # Not to keep the last free blocks of a full disk for zeros.
                disk.truncate(self.fd, self.size)
                raise
            self.size = size_bytes

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class JournalContents:
    """What one file of the journal holds, as found at a start."""

    __slots__ = ("first_sequence", "frames", "live", "path", "torn", "used_bytes")

    def __init__(self, path: Path) -> None:
        """Read the whole file. Raises `OSError`."""
        self.path = path
        self.first_sequence = 0
        self.frames: list[Frame] = []
        # Behind the last frame another one was begun: it is torn, or was damaged since.
        self.torn = False
        # Header and frames, up to the end of the last one.
        self.used_bytes = FIRST_FRAME_BYTES
        buffer = path.read_bytes()
        found = parse_header(buffer)
        self.live = found is not None
        if found is not None:
            salt, self.first_sequence = found
            self._scan(buffer, salt)

    def _scan(self, buffer: bytes, salt: int) -> None:
        """Collect the frames of this salt. Behind an invalid one, look for the next on every 64-byte border."""
        at = FIRST_FRAME_BYTES
        expected = self.first_sequence
        while at < len(buffer):
            frame = parse(buffer, at, salt)
            if frame is None:
                frame_at = self._search(buffer, at, salt, expected)
                if frame_at is None:
                    self.torn = begins(buffer, at, salt)
                    return
                at = frame_at
                continue
            self.frames.append(frame)
            expected = frame.sequence + 1
            at += padded(frame.length)
            self.used_bytes = at

    def store(self) -> None:
        """Bring what was read to the device, whatever it was read from. Raises `OSError`.

        A writer killed while it freed the file has zeroed the header in memory only, and an older use would come back
        with the next power cut; a failed sync may have dropped the bytes. So they are written once more.
        """
        fd = disk.open_file(self.path, os.O_RDWR)
        try:
            disk.write_at(fd, os.pread(fd, self.used_bytes, 0) if self.live else bytes(FIRST_FRAME_BYTES), 0)
            disk.sync_data(fd)
        finally:
            os.close(fd)

    @staticmethod
    def _search(buffer: bytes, at: int, salt: int, expected: int) -> int | None:
        wanted = salt.to_bytes(8, "little")
        at = buffer.find(wanted, at + 1)
        while at >= 0:
            if at % ALIGNMENT_BYTES == 0:
                frame = parse(buffer, at, salt)
                if frame is not None and frame.sequence > expected:
                    return at
            at = buffer.find(wanted, at + 1)
        return None
