"""Whether a message stands in a channel already, however long ago it came: by the channel's own files.

A cache of ids reaches back as far as it is large. What comes back after a long absence is older: a Go hub sends a
client its own messages again, and of two ways through a ring the slower one may take a day. So each channel's ids are
indexed as its files grow: blocks of id hashes with the span of time that the ids themselves speak of (they are UUID
v7). A new message is younger than every block, and costs a look at the spans.

The writer looks once more when it commits (`keyop.writer.seen`), for what two connections bring at the same time.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from pathlib import Path

from keyop.protocol.inbound import id_hash
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import list_segments

BLOCK_IDS = 16_384
_BLOCKS_IN_MEMORY = 64
# A sealed segment holds nothing younger than its last write; the clocks of hosts differ by less than this.
_CLOCK_SLACK_MS = 3_600_000
_FOR_EVER_MS = 1 << 48

_find_id = re.compile(rb'\{"v":1,"id":"([^"\\]+)"').match
_is_v7 = re.compile(rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7").match


def id_ms(id: bytes) -> int | None:
    """The milliseconds since 1970 that a UUID v7 speaks of; None for any other id."""
    return int(id[:8] + id[9:13], 16) if _is_v7(id) else None


class MustRead(Exception):
    """Old parts of the files have to be read, and the caller did not allow it: on an event loop that takes too long."""


class _Block:
    """Ids that stand one after the other in the files, from one global offset to another."""

    __slots__ = ("end", "greatest_ms", "hashes", "least_ms", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self.least_ms = _FOR_EVER_MS
        self.greatest_ms = -1
        # Sorted. None: not in memory now.
        self.hashes: array[int] | None = None


class ChannelIds:
    """The ids of one channel. Not for several threads at once; reading old segments may take a second.

    With ``may_read`` False the calls raise `MustRead` where that is needed; nothing has changed then.
    """

    def __init__(self, directory: Path) -> None:
        self.may_read = True
        self._directory = directory
        self._blocks: list[_Block] = []
        self._loaded: OrderedDict[int, _Block] = OrderedDict()
        # Sealed segments that nobody has asked for: start, end, time of the last write.
        self._unread: list[tuple[int, int, int]] = []
        self._fresh: set[int] = set()
        self._fresh_block = _Block(0)
        self._reader: SegmentReader | None = None

    def follow(self) -> None:
        """Read what was added to the channel since the last call. Raises `OSError`."""
        if self._reader is None:
            self._need_to_read()
            self._begin()
        reader = self._reader
        assert reader is not None
        while (batch := reader.read_batch(relist=True)) is not None:
            reader.events.clear()
            self._add(batch.lines, batch.end)

    def _begin(self) -> None:
        segments, _foreign = list_segments(self._directory)
        start = segments[-1].start if segments else 0
        for segment in segments[:-1]:
            status = segment.path.stat()
            self._unread.append((segment.start, segment.start + status.st_size, status.st_mtime_ns // 1_000_000))
        self._fresh_block = _Block(start)
        self._reader = SegmentReader(self._directory, start)

    def _add(self, lines: list[bytes], end: int) -> None:
        block, fresh = self._fresh_block, self._fresh
        for line in lines:
            found = _find_id(line)
            if found is not None:
                _widen(block, found[1])
                fresh.add(id_hash(found[1]))
        block.end = end
        if len(fresh) >= BLOCK_IDS:
            self._keep(block, array("Q", sorted(fresh)))
            self._blocks.append(block)
            self._fresh = set()
            self._fresh_block = _Block(end)

    def holds(self, id: bytes, hash: int) -> bool:
        """Whether the channel has a message of this id (`hash` is its `id_hash`), as of the last `follow`.

        Raises `OSError` where an old segment cannot be read.
        """
        if hash in self._fresh:
            return True
        time_ms = id_ms(id)
        if self._unread:
            self._read_segments(time_ms)
        for block in reversed(self._blocks):
            if time_ms is None or block.least_ms <= time_ms <= block.greatest_ms:
                hashes = self._hashes_of(block)
                at = bisect_left(hashes, hash)
                if at < len(hashes) and hashes[at] == hash:
                    return True
        return False

    def _read_segments(self, time_ms: int | None) -> None:
        """Index the sealed segments that may hold an id of this time."""
        wanted = [entry for entry in self._unread if time_ms is None or time_ms <= entry[2] + _CLOCK_SLACK_MS]
        for entry in wanted:
            self._need_to_read()
            self._unread.remove(entry)
            start, end, _ = entry
            self._blocks[:0] = self._scan(start, end)

    def _scan(self, start: int, end: int) -> list[_Block]:
        """Blocks for a range of the files, without their hashes: few of them are asked for."""
        blocks = []
        block = _Block(start)
        count = 0
        reader = SegmentReader(self._directory, start)
        try:
            while reader.offset < end and (batch := reader.read_batch()) is not None:
                for line in batch.lines:
                    found = _find_id(line)
                    if found is not None:
                        _widen(block, found[1])
                        count += 1
                block.end = min(batch.end, end)
                if count >= BLOCK_IDS:
                    blocks.append(block)
                    block, count = _Block(batch.end), 0
        finally:
            reader.close()
        return [*blocks, block] if count else blocks

    def _hashes_of(self, block: _Block) -> array[int]:
        if block.hashes is None:
            self._need_to_read()
            return self._keep(block, self._read_hashes(block))
        self._loaded.move_to_end(block.start)
        return block.hashes

    def _read_hashes(self, block: _Block) -> array[int]:
        hashes: list[int] = []
        reader = SegmentReader(self._directory, block.start)
        try:
            while reader.offset < block.end and (batch := reader.read_batch()) is not None:
                hashes += (id_hash(found[1]) for found in map(_find_id, batch.lines) if found is not None)
        finally:
            reader.close()
        return array("Q", sorted(hashes))

    def _keep(self, block: _Block, hashes: array[int]) -> array[int]:
        block.hashes = hashes
        self._loaded[block.start] = block
        if len(self._loaded) > _BLOCKS_IN_MEMORY:
            self._loaded.popitem(last=False)[1].hashes = None
        return hashes

    def _need_to_read(self) -> None:
        if not self.may_read:
            raise MustRead

    def close(self) -> None:
        """Give the descriptor up."""
        if self._reader is not None:
            self._reader.close()


def _widen(block: _Block, id: bytes) -> None:
    time_ms = id_ms(id)
    if time_ms is None:
        block.least_ms, block.greatest_ms = 0, _FOR_EVER_MS
        return
    if time_ms < block.least_ms:
        block.least_ms = time_ms
    if time_ms > block.greatest_ms:
        block.greatest_ms = time_ms
