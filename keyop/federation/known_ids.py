"""Whether a message stands in a channel already, however long ago it came: by the channel's own files.

A cache of ids reaches back as far as it is large. What comes back after a long absence is older: a Go hub sends a
client its own messages again, and of two ways through a ring the slower one may take a day. So each channel's ids are
indexed as its files grow. A new message costs a look into a dictionary.

The writer looks once more when it commits (`keyop.writer.seen`), for what two connections bring at the same time. What
was removed with its segment is not recognised any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from keyop.attachment.attachment import Attachment
from keyop.federation.id_stretches import (
    ByMoment,
    Gathering,
    Loaded,
    Notes,
    Stretch,
    bucket_of,
    moment_of,
    scan,
    sealed_segments,
)
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import Event, SegmentReader

# On an event loop no more of them is read than this, so that others have their turn.
_BATCHES_ON_LOOP = 2
_CHANNELS_OPEN = 256
_NOTES = "ids"


def notes_file(directory: DataDirectory, channel: str) -> Path:
    """Where is kept what is known of a channel's sealed segments."""
    return directory.run / _NOTES / f"{channel}.json"


class MustRead(Exception):
    """Much of the files has to be read, and the caller did not allow it: on an event loop that takes too long."""


class ChannelIds:
    """The ids of one channel. Any thread may ask; with ``may_read`` False nobody waits for another one's reading."""

    def __init__(self, directory: Path, notes: Path, loaded: Loaded) -> None:
        """``notes``: a file for what is known of sealed segments."""
        self._directory = directory
        self._notes = Notes(notes)
        self._loaded = loaded
        self._lock = threading.Lock()
        self._reader: SegmentReader | None = None
        self._clear()

    def _clear(self) -> None:
        self._by_bucket: dict[bytes, ByMoment] = {}
        self._of_segment: dict[int, list[Stretch]] = {}
        self._gathering = Gathering()
        self._segment_start = -1
        # Sizes of the segments that are indexed to their end, by start; and whether there are some that are not noted.
        self._whole: dict[int, int] = {}
        self._unnoted = False

    def known(self, ids: Sequence[bytes], hashes: Sequence[int], end: int = 0, *, may_read: bool = True) -> set[int]:
        """Those of the hashes whose id the channel holds; ``hashes[i]`` is the `id_hash` of ``ids[i]``.

        ``end``: where the channel is known to end; if the files can be read up to there, they are. Raises `OSError`,
        and `MustRead` if there is much to read and ``may_read`` is False.
        """
        if not self._lock.acquire(blocking=may_read):
            raise MustRead
        try:
            self._follow(end, may_read)
            return self._find(ids, hashes, may_read)
        finally:
            self._lock.release()

    # ---- what is added

    def _follow(self, end: int, may_read: bool) -> None:
        if self._reader is None or self._unnoted:
            if not may_read:
                raise MustRead
            if self._reader is None:
                self._begin()
            self._note()
        reader = self._reader
        assert reader is not None
        batches = 0
        while (batch := reader.read_batch(relist=reader.offset < end)) is not None:
            if any(event.event is Event.REMADE for event in reader.events):
                self._loaded.forget(self._directory)
                self._clear()
            reader.events.clear()
            if reader.segment_start != self._segment_start:
                self._leave_segment()
                self._segment_start = reader.segment_start
                self._gathering.begin(batch.start)
            self._gathering.add(batch.lines, batch.end)
            if self._gathering.is_full:
                self._seal()
            batches += 1
            if batches == _BATCHES_ON_LOOP and not may_read:
                raise MustRead

    def _begin(self) -> None:
        """Learn what sealed segments hold, from the notes or by reading; the active one is read by `_follow`."""
        noted = self._notes.read()
        sealed = sealed_segments(self._directory)
        for start, size in sealed:
            stretches = noted.get((start, size))
            for stretch in scan(self._directory, start, start + size) if stretches is None else stretches:
                self._index(start, stretch)
            self._whole[start] = size
        self._unnoted = noted.keys() != set(sealed)
        self._reader = SegmentReader(self._directory, sealed[-1][0] + sealed[-1][1] if sealed else 0)

    def _leave_segment(self) -> None:
        self._seal()
        if self._segment_start >= 0:
            self._whole[self._segment_start] = self._gathering.end - self._segment_start
            self._unnoted = True

    def _seal(self) -> None:
        """What was gathered becomes a stretch."""
        gathering = self._gathering
        if gathering.hashes:
            stretch = gathering.stretch()
            self._index(self._segment_start, stretch)
            self._loaded.put(self._directory, stretch, gathering.hashes)
        gathering.begin(gathering.end)

    def _index(self, segment_start: int, stretch: Stretch) -> None:
        self._of_segment.setdefault(segment_start, []).append(stretch)
        for bucket, span in stretch.spans.items():
            self._by_bucket.setdefault(bucket, ByMoment()).add(span, stretch)

    # ---- what is asked

    def _find(self, ids: Sequence[bytes], hashes: Sequence[int], may_read: bool) -> set[int]:
        fresh, by_bucket = self._gathering.hashes, self._by_bucket
        found: set[int] = set()
        sought: dict[Stretch, list[int]] = {}
        for id, hash in zip(ids, hashes, strict=True):
            if hash in fresh:
                found.add(hash)
                continue
            moment = moment_of(id)
            of_bucket = by_bucket.get(bucket_of(moment))
            if of_bucket is not None:
                for stretch in of_bucket.around(moment):
                    sought.setdefault(stretch, []).append(hash)
        for stretch, wanted in sought.items():
            there = self._loaded.get(self._directory, stretch)
            if there is None:
                if not may_read:
                    raise MustRead
                there = self._loaded.read(self._directory, stretch)
            for hash in wanted:
                at = bisect_left(there, hash)
                if at < len(there) and there[at] == hash:
                    found.add(hash)
        return found

    # ---- the end

    def _note(self) -> None:
        """Spare the next process the reading of what is sealed by now, and forget what is removed."""
        if not self._unnoted:
            return
        self._unnoted = False
        self._forget_removed({start for start, _size in sealed_segments(self._directory)})
        with contextlib.suppress(OSError):  # the next process reads what could not be noted
            self._notes.write({(start, size): self._of_segment.get(start, []) for start, size in self._whole.items()})

    def _forget_removed(self, starts: set[int]) -> None:
        removed = self._whole.keys() - starts
        if not removed:
            return
        kept = {start: stretches for start, stretches in self._of_segment.items() if start not in removed}
        self._whole = {start: size for start, size in self._whole.items() if start not in removed}
        self._of_segment, self._by_bucket = {}, {}
        for start, stretches in kept.items():
            for stretch in stretches:
                self._index(start, stretch)

    def close(self) -> None:
        """Note what is known, and give the descriptor up. Raises `OSError`."""
        with self._lock:
            if self._reader is None:
                return
            self._reader.close()
            self._reader = None
            self._note()
            self._clear()

    @property
    def is_busy(self) -> bool:
        """Whether somebody is asking just now."""
        return self._lock.locked()


class KnownIds:
    """The ids of all channels that come in; shared by the connections of one process."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._loaded = Loaded()
        self._channels: OrderedDict[str, ChannelIds] = OrderedDict()

    async def known(self, channel: str, ids: Sequence[bytes], hashes: Sequence[int]) -> set[int]:
        """Those of the hashes whose id stands in the channel. Raises `OSError`."""
        of_channel = self._channels.pop(channel, None)
        if of_channel is None:
            directory = self._attachment.directory
            of_channel = ChannelIds(directory.channel(channel), notes_file(directory, channel), self._loaded)
        self._channels[channel] = of_channel
        end = self._attachment.channel_end(channel)
        try:
            return of_channel.known(ids, hashes, end, may_read=False)
        except MustRead:
            await self._make_room()
            found = await asyncio.to_thread(of_channel.known, ids, hashes, end)
            if self._channels.get(channel) is not of_channel:
                await asyncio.to_thread(_close, of_channel)  # it was put out while it waited for its thread
            return found

    async def _make_room(self) -> None:
        """A peer that may publish to any channel can make up new ones all the time."""
        while len(self._channels) > _CHANNELS_OPEN:
            oldest = next((name for name, ids in self._channels.items() if not ids.is_busy), None)
            if oldest is None:
                return
            await asyncio.to_thread(_close, self._channels.pop(oldest))

    def close(self) -> None:
        """Give up all descriptors."""
        for of_channel in self._channels.values():
            _close(of_channel)


def _close(of_channel: ChannelIds) -> None:
    with contextlib.suppress(OSError):
        of_channel.close()
