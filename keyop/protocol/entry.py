"""The one binary form of what travels through a ring and into the journal.

A **transaction** is what a process hands to the writer: ``[u32 flags]`` and entries, all or none of which take effect.
A **frame** of the journal holds entries of the same form, with the offsets that the writer gave them.

An entry: ``[u8 kind][u8 channel length][u8 id length][u8 flags][u32 data length][u64 value]`` and then channel, id and
data. What ``value`` and ``data`` mean depends on the kind:

==========  =====================================  ==================================================================
kind        in a transaction                       in a frame
==========  =====================================  ==================================================================
APPEND      data: whole lines                      value: global offset; data: the lines
SPILLED     --                                     value: global offset; id: name of the spill file; data: SPILL
CURSOR      value: new offset; data: CURSOR_MOVE   value: offset; data: CURSOR_STATE
PARTS       --                                     value: the least offset; data: PART_STATE for each part
OPEN        value: start offset; data: OPENING     --  (what it granted stands in a CURSOR or in PARTS)
CLOSE       value: part                            --
FORGET      value: part; delete the offset         delete the offset
SET         value: offset                          --  (a CURSOR)
DELETE      a channel, with all its cursors        value: the number of this deletion
CHECKPOINT  --                                     --
INBOUND     data: see `keyop.protocol.inbound`     --  (an APPEND of the lines that are new)
AUDIT       data: whole lines of the audit log     --
FOLLOW      value: 1, be posted as it grows; 0: no  --
RING        --                                     value: ring id; data: u32 position and REPLY, repeated
==========  =====================================  ==================================================================

The module knows neither files nor shared memory, so that both may use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

APPEND, SPILLED, CURSOR, OPEN, CLOSE, FORGET, SET, CHECKPOINT, RING, INBOUND, AUDIT, FOLLOW = range(1, 13)
PARTS, DELETE = 13, 14

MAX_PARTS = 64
"""How many processes may share the work of one subscriber id."""

# Flags of a transaction.
SYNC = 1  # the frame is synced before it is applied, in every mode
SPILL = 2  # the transaction's entries stand in a spill file: data is SPILL_RECORD and the file's name

# Flags of an entry.
STARTS_SEGMENT = 1  # APPEND and SPILLED in a frame: a new segment begins with this entry
EXACTLY_ONCE = 1  # OPEN and CURSOR: the cursor lives in the writer's table, moves name the old value
FORCE = 1  # DELETE: also under live subscribers
AT_LATEST = 2  # OPEN: a new id starts at the channel's end, `value` does not count

TRANSACTION = Struct("<I")
ENTRY = Struct("<BBBBIQ")
SINGLE = Struct("<IBBBBIQ")  # a transaction's flags and its first entry at one look
CURSOR_MOVE = Struct("<QQI")  # old offset, count of moves after this one, part
CURSOR_STATE = Struct("<QQI")  # count of moves; offset of the message under way, attempts begun at it
PART_STATE = Struct("<QQQI")  # offset, and as CURSOR_STATE
OPENING = Struct("<HHI")  # part (from 0), of how many, slot of the port
SPILL_REFERENCE = Struct("<QQI")  # position in the spill file, length, CRC-32 of those bytes
SPILL_RECORD = Struct("<QI")  # length of the spill file, CRC-32 of it
POSITION = Struct("<I")
REPLY = Struct("<IIQ")  # position, code, value


class Entry(NamedTuple):
    """One decoded entry. ``channel``, ``id`` and ``data`` are bytes."""

    kind: int
    channel: bytes
    id: bytes
    flags: int
    value: int
    data: bytes


def encode(
    kind: int, channel: bytes = b"", id: bytes = b"", *, flags: int = 0, value: int = 0, data: bytes = b""
) -> bytes:
    """One entry as bytes."""
    return ENTRY.pack(kind, len(channel), len(id), flags, len(data), value) + channel + id + data


def decode(buffer: bytes, start: int, end: int) -> Iterator[Entry]:
    """The entries between two positions of a buffer. Raises ``ValueError`` where they do not fill it exactly."""
    while start < end:
        if end - start < ENTRY.size:
            raise ValueError(f"{end - start} bytes are too few for an entry")
        kind, channel_length, id_length, flags, data_length, value = ENTRY.unpack_from(buffer, start)
        channel_at = start + ENTRY.size
        id_at = channel_at + channel_length
        data_at = id_at + id_length
        start = data_at + data_length
        if start > end:
            raise ValueError(f"an entry of kind {kind} reaches {start - end} bytes beyond its transaction")
        yield Entry(kind, buffer[channel_at:id_at], buffer[id_at:data_at], flags, value, buffer[data_at:start])
