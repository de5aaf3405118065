"""From the log of a disk to what may stand on it after a power cut.

What was written before the last flush is there. Of what came after it each sector is there or not, whatever came before
or behind it: a disk writes its cache back in an order of its own, and the least that it writes is a sector.
"""

from __future__ import annotations

import mmap
import os
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torturing.powercut.disk import ENTRY, FLUSH

SECTOR_BYTES = 512
_BLOCK_BYTES = 4096
_NO_BLOCK = bytes(_BLOCK_BYTES)


class Write(NamedTuple):
    """One write that the disk was sent."""

    offset: int
    data: bytes


class Recording:
    """The log of a disk, after the workload."""

    def __init__(self, log: Path) -> None:
        """Read where its entries are. Raises `OSError`."""
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._log = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if size else b""
        # Where each write's bytes are: (offset on the disk, place in the log, length); None for a flush.
        self._entries: list[tuple[int, int, int] | None] = []
        self.flushes: list[int] = []
        self._times_ns: list[int] = []
        at = 0
        while at < size:
            time_ns, offset, length = ENTRY.unpack_from(self._log, at)
            self._times_ns.append(time_ns)
            at += ENTRY.size
            if length == FLUSH:
                self.flushes.append(len(self._entries))
                self._entries.append(None)
            else:
                self._entries.append((offset, at, length))
                at += length

    def __len__(self) -> int:
        """How many writes and flushes there are."""
        return len(self._entries)

    def time_ns(self, point: int) -> int:
        """When the last entry before a point came, by the monotonic clock; 0 if there is none."""
        return self._times_ns[point - 1] if point else 0

    def unflushed(self, point: int) -> int:
        """How many writes had come since the last flush before a point."""
        number = bisect_left(self.flushes, point)
        return point - (self.flushes[number - 1] + 1 if number else 0)

    def writes(self, begin: int, end: int) -> list[Write]:
        """The writes among the entries of this range."""
        return [
            Write(offset, self._log[at : at + length]) for offset, at, length in filter(None, self._entries[begin:end])
        ]


class Contents:
    """What stands on a disk. Blocks of zeros take no memory."""

    def __init__(self, file: Path) -> None:
        """Begin with what stands in a file. Raises `OSError`."""
        self._blocks: dict[int, bytes] = {}
        with file.open("rb") as reading:
            self.size = os.fstat(reading.fileno()).st_size
            at = 0
            while block := reading.read(_BLOCK_BYTES):
                if block.count(0) != len(block):
                    self._blocks[at] = block
                at += _BLOCK_BYTES

    def write(self, offset: int, data: bytes) -> None:
        """Do one write."""
        end = offset + len(data)
        begin = offset
        while begin < end:
            block = begin - begin % _BLOCK_BYTES
            until = min(end, block + _BLOCK_BYTES)
            piece = data[begin - offset : until - offset]
            if len(piece) < _BLOCK_BYTES:
                old = self._blocks.get(block, _NO_BLOCK)
                piece = old[: begin - block] + piece + old[until - block :]
            self._blocks[block] = piece
            begin = until

    def save(self, file: Path) -> None:
        """Write it to a file, with holes where nothing is. Raises `OSError`."""
        with file.open("wb", buffering=0) as writing:
            writing.truncate(self.size)
            for begin, pieces in self._runs():
                writing.seek(begin)
                writing.write(b"".join(pieces))

    def _runs(self) -> Iterator[tuple[int, list[bytes]]]:
        begin = 0
        pieces: list[bytes] = []
        for at in sorted(self._blocks):
            if at != begin + len(pieces) * _BLOCK_BYTES:
                if pieces:
                    yield begin, pieces
                begin, pieces = at, []
            pieces.append(self._blocks[at])
        if pieces:
            yield begin, pieces


@dataclass(frozen=True, slots=True)
class Survival:
    """Which sectors are there of what came after the last flush."""

    rule: str
    """``sectors``: each with a chance. ``writes``: each write as a whole with a chance. ``all but one``: one sector is
    missing. ``last``: only the last write."""
    chance: float
    seed: int

    def of(self, writes: list[Write], whole: Sequence[tuple[int, int]] = ()) -> list[Write]:
        """What is left of these writes, in their order. Those in the ranges ``whole`` are there or not as they are."""
        dice = random.Random(self.seed)
        if self.rule == "last":
            return writes[-1:]
        if self.rule == "writes":
            return [write for write in writes if dice.random() < self.chance]
        sectors = [piece for write in writes for piece in _sectors(write, whole)]
        if self.rule == "all but one":
            missing = dice.randrange(max(1, len(sectors)))
            return sectors[:missing] + sectors[missing + 1 :]
        if self.chance >= 1.0:
            return writes
        return [sector for sector in sectors if dice.random() < self.chance]


def _sectors(write: Write, whole: Sequence[tuple[int, int]]) -> Iterator[Write]:
    if any(begin <= write.offset and write.offset + len(write.data) <= end for begin, end in whole):
        yield write
        return
    for at in range(0, len(write.data), SECTOR_BYTES):
        yield Write(write.offset + at, write.data[at : at + SECTOR_BYTES])


class Images:
    """The images of one recording, for points that only go forward."""

    def __init__(self, recording: Recording, first_contents: Path) -> None:
        self._recording = recording
        self._contents = Contents(first_contents)
        self._until = 0
        self._next_flush = 0

    def tail(self, point: int) -> list[Write]:
        """Go to a point, which is not before the last one; the writes since the flush before it."""
        flushes = self._recording.flushes
        while self._next_flush < len(flushes) and flushes[self._next_flush] < point:
            flush = flushes[self._next_flush]
            for offset, data in self._recording.writes(self._until, flush):
                self._contents.write(offset, data)
            self._until = flush + 1
            self._next_flush += 1
        return self._recording.writes(self._until, point)

    def save(self, survivors: list[Write], file: Path) -> None:
        """What was flushed at the point, and these writes, to a file.

        Afterwards they stand in these contents: meant for a forked child, whose copy ends with it. Raises `OSError`.
        """
        for offset, data in survivors:
            self._contents.write(offset, data)
        self._contents.save(file)
