"""Stretches of a channel's files, and of which times the ids in each speak: so that an id is sought in few of them.

An id of version 7 begins with the time at which it was made, its **moment**, in milliseconds. The first seven digits
of that, about 17 minutes, are its **bucket**. A stretch is a few thousand lines, their buckets, and the first and last
moment in each; an id can only be in stretches that have its bucket, and its moment between the two. (A busy channel
fills thousands of stretches in 17 minutes.) Clocks may be wrong (a Pi boots in 1970) and messages may come from hosts
that were away for a month: then a stretch has more buckets, and that is all. Ids of any other form share a bucket of
their own, and a moment.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from keyop.federation.record import read_record
from keyop.protocol.inbound import id_hash
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import MAX_LINE_BYTES, list_segments

STRETCH_IDS = 4_096
LOADED_STRETCHES = 256
_BUCKET_DIGITS = 7
_ELSE = b""
_FORMAT = 2

_V7 = rb"([0-9a-fA-F]{8}-[0-9a-fA-F]{4})-7"
_find_id = re.compile(rb'\{"v":1,"id":"((?:' + _V7 + rb')?[^"\\]*)"').match
_find_v7 = re.compile(_V7).match


def moment_of(id: bytes) -> bytes:
    """The moment of an id: texts that sort as the times do; empty for an id of another form."""
    found = _find_v7(id)
    return found[1].lower() if found else _ELSE


def bucket_of(moment: bytes) -> bytes:
    """The bucket of a moment."""
    return moment[:_BUCKET_DIGITS]


def id_of_line(line: bytes) -> tuple[bytes, bytes]:
    """The id of a line, and its moment. The id is empty if there is none, or none that can be read."""
    found = _find_id(line)
    if found is not None:
        moment = found[2]
        return found[1], moment.lower() if moment else _ELSE
    # Keys in another order, blanks, another version, half a line with a whole one behind it: few.
    id = read_record(line, MAX_LINE_BYTES).head.id.encode("utf-8", "surrogatepass")
    return id, moment_of(id)


Span = tuple[bytes, bytes]
"""The first and the last moment in a bucket."""


class Stretch:
    """Lines from one global offset to another, all in one segment."""

    __slots__ = ("end", "spans", "start")

    def __init__(self, start: int, end: int, spans: Mapping[bytes, Span]) -> None:
        self.start = start
        self.end = end
        self.spans = spans
        """By bucket."""


class ByMoment:
    """The stretches that have one bucket, in the order of the files: which of them may have an id of a moment."""

    def __init__(self) -> None:
        # With the last moment of this one and all before it: time goes forward in a file, more or less, so that a
        # look from the end soon comes to where there can be no more.
        self._stretches: list[tuple[bytes, bytes, bytes, Stretch]] = []

    def add(self, span: Span, stretch: Stretch) -> None:
        """One that stands behind all others."""
        least, greatest = span
        so_far = self._stretches[-1][2] if self._stretches else greatest
        self._stretches.append((least, greatest, max(so_far, greatest), stretch))

    def around(self, moment: bytes) -> Iterator[Stretch]:
        """Those that may have an id of this moment, the last first."""
        for least, greatest, so_far, stretch in reversed(self._stretches):
            if so_far < moment:
                return
            if least <= moment <= greatest:
                yield stretch


class Gathering:
    """Lines as they are read, until they make a stretch."""

    def __init__(self) -> None:
        self.hashes: set[int] = set()
        self.begin(0)

    def begin(self, start: int) -> None:
        """Begin a new stretch."""
        self.start = self.end = start
        self.hashes.clear()
        self._spans: dict[bytes, Span] = {}

    def add(self, lines: Iterable[bytes], end: int) -> None:
        """Take whole lines that follow."""
        hashes, spans = self.hashes, self._spans
        for line in lines:
            id, moment = id_of_line(line)
            if id:
                hashes.add(id_hash(id))
                bucket = moment[:_BUCKET_DIGITS]
                least, greatest = spans.get(bucket) or (moment, moment)
                if moment >= greatest:
                    spans[bucket] = least, moment
                elif moment < least:
                    spans[bucket] = moment, greatest
        self.end = end

    @property
    def is_full(self) -> bool:
        """Whether it is time to make a stretch of it."""
        return len(self.hashes) >= STRETCH_IDS

    def stretch(self) -> Stretch:
        """What was gathered."""
        return Stretch(self.start, self.end, self._spans)


def scan(directory: Path, start: int, end: int) -> Iterator[Stretch]:
    """The stretches of a sealed segment. Raises `OSError`."""
    gathering = Gathering()
    gathering.begin(start)
    reader = SegmentReader(directory, start)
    try:
        while reader.offset < end and (batch := reader.read_batch()) is not None:
            gathering.add(batch.lines, min(batch.end, end))
            if gathering.is_full:
                yield gathering.stretch()
                gathering.begin(gathering.end)
    finally:
        reader.close()
    if gathering.hashes:
        yield gathering.stretch()


class Loaded:
    """The hashes of the stretches that were asked for last, sorted; of all channels."""

    def __init__(self, most: int = LOADED_STRETCHES) -> None:
        self._most = most
        self._hashes: OrderedDict[tuple[Path, int], array[int]] = OrderedDict()

    def get(self, directory: Path, stretch: Stretch) -> array[int] | None:
        """None if they have to be read."""
        key = (directory, stretch.start)
        hashes = self._hashes.get(key)
        if hashes is not None:
            self._hashes.move_to_end(key)
        return hashes

    def put(self, directory: Path, stretch: Stretch, hashes: Iterable[int]) -> array[int]:
        """Keep them."""
        found = self._hashes[directory, stretch.start] = array("Q", sorted(hashes))
        if len(self._hashes) > self._most:
            self._hashes.popitem(last=False)
        return found

    def read(self, directory: Path, stretch: Stretch) -> array[int]:
        """Read them from the files, and keep them. Of what was removed meanwhile there are none. Raises `OSError`."""
        gathering = Gathering()
        reader = SegmentReader(directory, stretch.start)
        try:
            while reader.offset < stretch.end and (batch := reader.read_batch()) is not None:
                gathering.add(batch.lines, batch.end)
        finally:
            reader.close()
        return self.put(directory, stretch, gathering.hashes)

    def forget(self, directory: Path) -> None:
        """The channel was deleted and made anew."""
        for key in [key for key in self._hashes if key[0] == directory]:
            del self._hashes[key]


class Notes:
    """What sealed segments hold, noted in a file: they are read once, and not again by each process that starts.

    A file that is missing, damaged or of another release costs the reading.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[tuple[int, int], list[Stretch]]:
        """Stretches by start and size of their segment."""
        try:
            noted = json.loads(self._path.read_text())
            if noted["format"] != _FORMAT:
                return {}
            return {
                (start, size): [Stretch(first, last, _read_spans(text)) for first, last, text in stretches]
                for start, size, stretches in noted["segments"]
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def write(self, segments: dict[tuple[int, int], list[Stretch]]) -> None:
        """Raises `OSError`."""
        noted = {
            "format": _FORMAT,
            "segments": [
                [start, size, [[one.start, one.end, _spans_text(one.spans)] for one in stretches]]
                for (start, size), stretches in segments.items()
            ],
        }
        self._path.parent.mkdir(mode=0o755, exist_ok=True)
        # Hub and client may do this at the same time.
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(noted, separators=(",", ":")))
        draft.replace(self._path)


def _spans_text(spans: Mapping[bytes, Span]) -> str:
    # Of the last moment what it does not share with the first: the bucket is the beginning of both.
    return " ".join(f"{least.decode()}/{greatest[_BUCKET_DIGITS:].decode()}" for least, greatest in spans.values())


def _read_spans(text: str) -> dict[bytes, Span]:
    spans = {}
    for span in text.split(" "):
        first, _, last = span.partition("/")
        least = first.encode()
        bucket = bucket_of(least)
        spans[bucket] = least, bucket + last.encode()
    return spans


def sealed_segments(directory: Path) -> list[tuple[int, int]]:
    """Start and size of each segment but the last. Raises `OSError`."""
    segments, _foreign = list_segments(directory)
    found = []
    for segment in segments[:-1]:
        try:
            found.append((segment.start, segment.path.stat().st_size))
        except FileNotFoundError:
            continue
    return found
