"""The ring in which one process hands its transactions to the writer: single producer, single consumer.

A record is ``[u32 length][u32 CRC-32 of the payload, seeded with the record's position][payload]`` and may wrap around
the end. Positions are free-running u32. The seed is what tells this lap's record from the last one's: processors
reorder stores, so that HEAD may be seen before the bytes that it covers.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from keyop.ipc.layout import COMMITTED, HEAD, MASK, RING_BYTES, RING_SIZE_BYTES
from keyop.ipc.memory import Memory

HEADER = Struct("<II")
_WRAP = RING_SIZE_BYTES - 1

# The longest payload that goes through the ring; a longer transaction is spilled to a file.
MAX_PAYLOAD_BYTES = 128 * 1024


class RingProducer:
    """The process's end. Its caller holds a lock: one `put` at a time."""

    __slots__ = ("_buffer", "_head", "_words")

    def __init__(self, memory: Memory) -> None:
        self._buffer = memory.buffer
        self._words = memory.words
        self._head: int = memory.words[HEAD]

    @property
    def head(self) -> int:
        """The position behind the last record."""
        return self._head

    def after(self, length: int) -> int:
        """The position behind the record that `put` would append for a payload of this length."""
        return self._head + length + 8 & MASK

    def put(self, payload: bytes) -> int | None:
        """Append a record and return the position behind it; None if there is no room now."""
        head = self._head
        length = len(payload)
        words = self._words
        if RING_SIZE_BYTES - ((head - words[COMMITTED]) & MASK) < length + 8:
            return None
        record = HEADER.pack(length, crc32(payload, head)) + payload
        start = head & _WRAP
        end = start + length + 8
        if end <= RING_SIZE_BYTES:
            self._buffer[RING_BYTES + start : RING_BYTES + end] = record
        else:
            room = RING_SIZE_BYTES - start
            self._buffer[RING_BYTES + start : RING_BYTES + RING_SIZE_BYTES] = record[:room]
            self._buffer[RING_BYTES : RING_BYTES + end - RING_SIZE_BYTES] = record[room:]
        self._head = head = (head + length + 8) & MASK
        words[HEAD] = head
        return head


def copy(memory: Memory, position: int, count: int) -> bytes:
    """The writer's end: a private copy of ``count`` bytes from a position. Only a copy may be trusted or checked."""
    start = position & _WRAP
    end = start + count
    buffer = memory.buffer
    if end <= RING_SIZE_BYTES:
        return buffer[RING_BYTES + start : RING_BYTES + end]
    tail = buffer[RING_BYTES + start : RING_BYTES + RING_SIZE_BYTES]
    return tail + buffer[RING_BYTES : RING_BYTES + end - RING_SIZE_BYTES]
