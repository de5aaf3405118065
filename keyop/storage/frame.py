"""A frame of the journal: one group commit.

``[u64 salt][u64 sequence][u64 synced][u32 length][u32 entries][u32 CRC-32][u32 zero]`` and the entries (see
`keyop.protocol.entry`), padded with zeros to 64 bytes. ``synced`` is the highest sequence number that was known to be
on the device when the frame was written; the CRC covers all but itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from zlib import crc32

from keyop.protocol import entry

ALIGNMENT_BYTES = 64
_HEAD = Struct("<QQQII")
_TAIL = Struct("<II")
HEADER_BYTES = _HEAD.size + _TAIL.size


def padded(length: int) -> int:
    """The room that a frame of this length takes."""
    return (length + ALIGNMENT_BYTES - 1) // ALIGNMENT_BYTES * ALIGNMENT_BYTES


def compose(salt: int, sequence: int, synced: int, entries: list[bytes]) -> bytes:
    """The bytes of a frame, padding included."""
    body = b"".join(entries)
    length = HEADER_BYTES + len(body)
    head = _HEAD.pack(salt, sequence, synced, length, len(entries))
    check = crc32(body, crc32(head))
    return b"".join((head, _TAIL.pack(check, 0), body, bytes(-length % ALIGNMENT_BYTES)))


class Frame:
    """A frame that was read back and whose CRC holds."""

    __slots__ = ("body", "length", "sequence", "synced")

    def __init__(self, sequence: int, synced: int, length: int, body: bytes) -> None:
        self.sequence = sequence
        self.synced = synced
        self.length = length
        self.body = body

    def entries(self) -> Iterator[entry.Entry]:
        """What the frame says."""
        return entry.decode(self.body, 0, len(self.body))


def parse(buffer: bytes, at: int, salt: int) -> Frame | None:
    """The frame of this salt that begins at a position, or None."""
    if at + HEADER_BYTES > len(buffer):
        return None
    found_salt, sequence, synced, length, count = _HEAD.unpack_from(buffer, at)
    if found_salt != salt or length < HEADER_BYTES or at + length > len(buffer):
        return None
    check, _ = _TAIL.unpack_from(buffer, at + _HEAD.size)
    body = buffer[at + HEADER_BYTES : at + length]
    if crc32(body, crc32(buffer[at : at + _HEAD.size])) != check:
        return None
    try:
        if sum(1 for _ in entry.decode(body, 0, len(body))) != count:
            return None
    except ValueError:
        return None
    return Frame(sequence, synced, length, body)


def begins(buffer: bytes, at: int, salt: int) -> bool:
    """Whether a frame of this salt, or one that is whole but for its salt, was begun at a position."""
    wanted = salt.to_bytes(8, "little")
    if buffer[at : at + 8] == wanted:
        return True
    if at + HEADER_BYTES > len(buffer):
        return False
    length = _HEAD.unpack_from(buffer, at)[3]
    return parse(wanted + buffer[at + 8 : at + min(length, len(buffer))], 0, salt) is not None
