"""A subscription's place in a port: its cursor, the attempt under way, counters, and its names.

The cursor is stored before every attempt of a handler, so it is one packed copy with a CRC, written to two places in
turn: a process killed in the middle of a store leaves the copy before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from keyop.ipc import layout
from keyop.ipc.histogram import Distribution, Histogram, read_histogram, write_histogram
from keyop.ipc.memory import Memory
from keyop.ipc.word import load64, store64

_CURSOR = Struct("<QQI")
_CURSOR_AND_CHECK = Struct("<QQII")
_CHECK = Struct("<I")
_NAMES = Struct("<HH")
_GRANTED = (layout.SLOT_GRANTED, layout.SLOT_LEAVING)
_IN_USE = (layout.SLOT_ASKED, *_GRANTED)


class SlotCursor(NamedTuple):
    """``moves`` is the number of stores so far: of two claims the one with more moves is the truth."""

    moves: int
    offset: int
    attempts: int


class Slot:
    """One slot of a port. The process that owns the port writes it; anybody may read it."""

    __slots__ = ("_base", "_buffer", "_word", "_words", "index")

    def __init__(self, memory: Memory, index: int) -> None:
        self.index = index
        self._buffer = memory.buffer
        self._words = memory.words
        self._base = layout.SLOTS_BYTES + index % layout.SLOTS_A_PAGE * layout.SLOT_BYTES
        self._word = self._base // 4

    # ---- the owner's side

    def occupy(self, channel: bytes, id: bytes, flags: int, part: int = 0, parts: int = 1) -> None:
        """Write the names and mark the slot used. The cursor is zero until `cursor_writer` stores one."""
        self._occupy(channel, id, flags, part, parts, layout.SLOT_ASKED)

    def occupy_peer(self, name: bytes, address: bytes) -> None:
        """Make it the place of a peer, whose state is not known yet."""
        self._occupy(name[:255], address[:253], 0, 0, 1, layout.SLOT_PEER)

    def occupy_published(self, channel: bytes) -> None:
        """Make it the place of a channel that this process publishes to."""
        self._occupy(channel, b"", 0, 0, 1, layout.SLOT_PUBLISHED)

    def _occupy(self, channel: bytes, id: bytes, flags: int, part: int, parts: int, state: int) -> None:
        base, words, word = self._base, self._words, self._word
        self._buffer[base : base + layout.SLOT_BYTES] = bytes(layout.SLOT_BYTES)
        at = base + layout.SLOT_NAMES_BYTES
        names = _NAMES.pack(len(channel), len(id)) + channel + id
        self._buffer[at : at + len(names)] = names
        words[word + layout.SLOT_PART] = part
        words[word + layout.SLOT_PARTS] = parts
        words[word + layout.SLOT_FLAGS] = flags
        words[word + layout.SLOT_CHECK] = self._check()
        words[word + layout.SLOT_IN_USE] = state

    def _check(self) -> int:
        first = self._base + 4 * layout.SLOT_PART
        at = self._base + layout.SLOT_NAMES_BYTES
        channel_length, id_length = _NAMES.unpack_from(self._buffer, at)
        names = self._buffer[at : at + _NAMES.size + channel_length + id_length]
        return crc32(names, crc32(self._buffer[first : first + 12]))

    def grant(self) -> None:
        """The writer has said yes."""
        self._words[self._word + layout.SLOT_IN_USE] = layout.SLOT_GRANTED

    def leave(self) -> None:
        """It is about to be given up: what says so to the writer follows in the ring."""
        self._words[self._word + layout.SLOT_IN_USE] = layout.SLOT_LEAVING

    def vacate(self) -> None:
        """Mark the slot free."""
        self._words[self._word + layout.SLOT_IN_USE] = 0

    def store_peer(self, values: Mapping[str, int | None]) -> None:
        """Store how it stands with the peer, by the names of `layout.SLOT_PEER_VALUES`; None for what is not known."""
        at = self._word + layout.SLOT_COUNTERS
        for name in layout.SLOT_PEER_VALUES:
            value = values[name]
            store64(self._words, at, layout.UNKNOWN if value is None else value)
            at += 3

    def cursor_writer(self) -> Callable[[int, int, int], None]:
        """``store(moves, offset, attempts)``, as quick as Python can: it runs once for each message."""
        buffer = self._buffer
        first, second = (self._base + at for at in layout.SLOT_CURSOR_BYTES)
        size = _CURSOR_AND_CHECK.size
        pack, pack_check = _CURSOR.pack, _CHECK.pack

        def store(moves: int, offset: int, attempts: int) -> None:
            packed = pack(moves, offset, attempts)
            at = second if moves & 1 else first
            buffer[at : at + size] = packed + pack_check(crc32(packed))

        return store

    def count(self, name: str, total: int) -> None:
        """Store a counter's new total."""
        store64(self._words, self._word + layout.SLOT_COUNTERS + 3 * layout.SLOT_COUNTER_NAMES.index(name), total)

    def histogram(self, which: int) -> Histogram:
        """One of `layout.SLOT_TIMES`, empty, to be counted in."""
        return Histogram(self._words, self._word + layout.SLOT_TIMES[which])

    def store_times(self, which: int, times: Distribution) -> None:
        """Show in one of `layout.SLOT_TIMES` what is counted elsewhere."""
        write_histogram(self._words, self._word + layout.SLOT_TIMES[which], times)

    def move_histogram(self, which: int, histogram: Histogram) -> None:
        """Go on counting in this slot: shared memory was made anew."""
        histogram.move(self._words, self._word + layout.SLOT_TIMES[which])

    # ---- anybody's side

    @property
    def in_use(self) -> bool:
        """Whether a subscription stands here."""
        return self._words[self._word + layout.SLOT_IN_USE] in _IN_USE

    @property
    def is_free(self) -> bool:
        """Whether nothing stands here."""
        return not self._words[self._word + layout.SLOT_IN_USE]

    @property
    def is_peer(self) -> bool:
        """Whether a peer of hub or client stands here."""
        return bool(self._words[self._word + layout.SLOT_IN_USE] == layout.SLOT_PEER)

    @property
    def is_published(self) -> bool:
        """Whether this is the place of a channel that the process publishes to."""
        return bool(self._words[self._word + layout.SLOT_IN_USE] == layout.SLOT_PUBLISHED)

    @property
    def sound(self) -> bool:
        """Whether names and flags are what was written."""
        return bool(self._words[self._word + layout.SLOT_CHECK] == self._check())

    @property
    def granted(self) -> bool:
        """Whether the writer's yes has been seen."""
        return self._words[self._word + layout.SLOT_IN_USE] in _GRANTED

    @property
    def leaving(self) -> bool:
        """Whether its process gives it up, or has done so and does not know yet."""
        return bool(self._words[self._word + layout.SLOT_IN_USE] == layout.SLOT_LEAVING)

    @property
    def flags(self) -> int:
        """`entry.EXACTLY_ONCE` or 0."""
        return int(self._words[self._word + layout.SLOT_FLAGS])

    def names(self) -> tuple[bytes, bytes]:
        """Channel and id; of a peer its name and address."""
        at = self._base + layout.SLOT_NAMES_BYTES
        channel, id = _NAMES.unpack_from(self._buffer, at)
        at += _NAMES.size
        return self._buffer[at : at + channel], self._buffer[at + channel : at + channel + id]

    def place(self) -> tuple[bytes, bytes, int, int]:
        """Channel and id, the part (counted from 0) and how many parts there are."""
        words, word = self._words, self._word
        return *self.names(), words[word + layout.SLOT_PART], words[word + layout.SLOT_PARTS]

    def cursor(self) -> SlotCursor | None:
        """The valid copy with more moves; None if none was stored yet."""
        best = None
        for at in layout.SLOT_CURSOR_BYTES:
            start = self._base + at
            copy = self._buffer[start : start + _CURSOR_AND_CHECK.size]
            moves, offset, attempts, check = _CURSOR_AND_CHECK.unpack(copy)
            if moves and crc32(copy[: _CURSOR.size]) == check and (best is None or moves > best.moves):
                best = SlotCursor(moves, offset, attempts)
        return best

    def counters(self) -> dict[str, int]:
        """The totals by name."""
        first = self._word + layout.SLOT_COUNTERS
        return {name: load64(self._words, first + 3 * i) or 0 for i, name in enumerate(layout.SLOT_COUNTER_NAMES)}

    def times(self, which: int) -> Distribution:
        """What was counted in one of `layout.SLOT_TIMES`."""
        return read_histogram(self._words, self._word + layout.SLOT_TIMES[which])

    def peer(self) -> dict[str, int | None]:
        """What was stored of a peer; None for what is not known."""
        first = self._word + layout.SLOT_COUNTERS
        values = {name: load64(self._words, first + 3 * i) for i, name in enumerate(layout.SLOT_PEER_VALUES)}
        return {name: None if value == layout.UNKNOWN else value for name, value in values.items()}
