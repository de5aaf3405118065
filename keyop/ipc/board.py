"""The board: what the writer tells everybody. A hint for wake-ups and live views; the files are the truth."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

from keyop.ipc import layout, memory
from keyop.ipc.histogram import Distribution, Histogram, read_histogram
from keyop.ipc.memory import Memory
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.word import load64, store64

_FIRST = layout.BOARD_HEADER_BYTES // 4
_COUNTER_AT = {name: layout.BOARD_COUNTERS + 3 * number for number, name in enumerate(layout.COUNTERS)}
_LEAST_SLOTS = 16_384
_SHM = Path("/dev/shm")
_CONSTANT = (
    layout.MAGIC,
    layout.VERSION,
    layout.PLATFORM,
    layout.SIZE,
    layout.DIRECTORY_LO,
    layout.DIRECTORY_HI,
    layout.PID,
    layout.INCARNATION,
    layout.SYNC_INTERVAL_MS,
    layout.TABLE_SLOTS,
)


class BoardFull(Exception):
    """No room for another channel: the writer leaves and is started again with a larger board."""


def channel_hash(channel: bytes) -> tuple[int, int]:
    """Two words that stand for a channel's name; never (0, 0), which marks a free place."""
    return crc32(channel) | 1, crc32(channel, 0x9E37_79B9)


def board_bytes(channels: int) -> int:
    """How much shared memory the board of so many channels takes."""
    return layout.BOARD_HEADER_BYTES + _slots(channels) * layout.CHANNEL_WORDS * 4


def _slots(channels: int) -> int:
    slots = _LEAST_SLOTS
    while slots < channels * 4:
        slots *= 2
    return slots


class Board:
    """A mapped board, on either side."""

    __slots__ = ("_constant", "_mask", "_used", "memory", "words")

    def __init__(self, shared: Memory) -> None:
        self.memory = shared
        self.words = shared.words
        self._mask = int(shared.words[layout.TABLE_SLOTS]) - 1
        # The writer's count of its channels.
        self._used = 0
        self._constant: list[tuple[int, int]] = []

    @classmethod
    def create(cls, identity: DirectoryIdentity, channels: int, sync_interval_ms: int = 0) -> Board:
        """The writer's side: a new board with room for ``channels`` and a good many more. State STARTING.

        A board that is there already is marked GONE first, so that who has it mapped looks for this one.
        """
        retire(identity)
        slots = _slots(channels)
        shared = memory.create(identity.board(), board_bytes(channels), identity.owner)
        shared.words[layout.TABLE_SLOTS] = slots
        shared.words[layout.INCARNATION] = int.from_bytes(os.urandom(4), "little") | 1
        shared.words[layout.SYNC_INTERVAL_MS] = sync_interval_ms
        shared.words[layout.STATE] = layout.STARTING
        shared.stamp(layout.BOARD_MAGIC, identity.id)
        board = cls(shared)
        board._constant = [(index, shared.words[index]) for index in _CONSTANT]
        return board

    def restate(self) -> None:
        """The writer's side, now and then: what never changes, whatever memory has made of it.

        Nobody else writes there, and a damaged word would keep everybody out until this writer leaves.
        """
        words = self.words
        for index, value in self._constant:
            if words[index] != value:
                words[index] = value

    @classmethod
    def open(cls, identity: DirectoryIdentity) -> Board | None:
        """Anybody's side; None if there is no usable board. Raises `SharedMemoryError` for one of another owner."""
        shared = memory.open_existing(identity.board(), identity.owner_uids)
        if shared is None:
            return None
        if shared.fault(layout.BOARD_MAGIC, identity.id):
            shared.close()
            return None
        return cls(shared)

    def close(self) -> None:
        """Unmap."""
        self.memory.close()

    @property
    def state(self) -> int:
        """One of `layout.STATE_NAMES`."""
        return int(self.words[layout.STATE])

    @property
    def incarnation(self) -> int:
        """Drawn anew by each writer."""
        return int(self.words[layout.INCARNATION])

    def find(self, channel: bytes) -> int | None:
        """The word index of a channel's place, to be kept by who looks often; None if it is not there."""
        index = self._probe(channel)
        return index if self.words[index] else None

    def add(self, channel: bytes) -> int:
        """The writer's side: the place of a channel, taken if it is not there yet. Raises `BoardFull`."""
        index = self._probe(channel)
        if not self.words[index]:
            self._used += 1
            if self._used > self._mask * 3 // 4:
                raise BoardFull
            lo, hi = channel_hash(channel)
            store64(self.words, index + 2, 0)
            store64(self.words, index + 5, 0)
            self.words[index + 1] = hi
            self.words[index] = lo
        return index

    def _probe(self, channel: bytes) -> int:
        lo, hi = channel_hash(channel)
        words, mask = self.words, self._mask
        slot = (lo ^ hi >> 7) & mask
        for _ in range(mask + 1):  # a quarter of the places is free, unless this memory is damaged
            index = _FIRST + slot * layout.CHANNEL_WORDS
            if not words[index] or (words[index] == lo and words[index + 1] == hi):
                return index
            slot = slot + 1 & mask
        raise BoardFull

    def end(self, index: int) -> int | None:
        """The committed end of the channel at a place, in bytes; None while it changes."""
        return load64(self.words, index + 2)

    def set_end(self, index: int, end: int) -> None:
        """The writer's side."""
        store64(self.words, index + 2, end)

    def records(self, index: int) -> int:
        """Records committed to the channel since the writer started."""
        return load64(self.words, index + 5) or 0

    def end_and_records(self, index: int) -> tuple[int | None, int | None]:
        """Both at once, for who looks at many; None for one that changes."""
        end_lo, end_hi, end_check, lo, hi, check = self.words[index + 2 : index + 8].tolist()
        end = end_lo | end_hi << 32 if end_check == end_lo ^ end_hi ^ layout.CHECK else None
        return end, lo | hi << 32 if check == lo ^ hi ^ layout.CHECK else None

    def set_records(self, index: int, records: int) -> None:
        """The writer's side."""
        store64(self.words, index + 5, records)

    def counters(self) -> dict[str, int]:
        """The writer's totals by name."""
        return {name: load64(self.words, at) or 0 for name, at in _COUNTER_AT.items()}

    def set_counter(self, name: str, total: int) -> None:
        """The writer's side."""
        store64(self.words, _COUNTER_AT[name], total)

    def histogram(self, at: int) -> Histogram:
        """The writer's side: ``layout.BOARD_COMMIT_TIMES`` or ``BOARD_SYNC_TIMES``, to be counted in."""
        return Histogram(self.words, at)

    def times(self, at: int) -> Distribution:
        """What the writer has counted there."""
        return read_histogram(self.words, at)


def is_named(identity: DirectoryIdentity) -> bool:
    """Whether the board's name is there; True where shared memory cannot be looked at."""
    return not _SHM.is_dir() or (_SHM / identity.board()[1:]).exists()


def retire(identity: DirectoryIdentity) -> None:
    """The writer's side: mark the board that is there GONE and remove its name."""
    old = Board.open(identity)
    if old is not None:
        old.words[layout.STATE] = layout.GONE
        old.close()
    memory.unlink(identity.board())
