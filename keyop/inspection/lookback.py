"""Where something begins in a channel: its first or last records, those since a time."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from keyop.messages.envelope import line_ts_ns
from keyop.storage.segment_reader import first_offset_since
from keyop.storage.segments import Segment, channel_end, list_segments

_STEP_BYTES = 64 * 1024


Where = Literal["latest", "earliest"] | int | datetime


def offset_of(directory: Path, start: Where) -> int:
    """The global offset that a start means; one that is an offset already is not looked at. Raises `OSError`."""
    if start == "latest":
        return channel_end(directory)
    if start == "earliest":
        segments, _ = list_segments(directory)
        return segments[0].start if segments else 0
    if isinstance(start, datetime):
        moment = start.astimezone(UTC)
        since_ns = int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
        return first_offset_since(directory, since_ns, line_ts_ns)
    return int(start)


def offset_of_last(directory: Path, count: int) -> int:
    """The global offset at which the last ``count`` lines begin, without reading all; fewer if there are no more.

    Raises `OSError`.
    """
    if count <= 0:
        return channel_end(directory)
    segments, _ = list_segments(directory)
    for segment in reversed(segments):
        position, count = _back(segment, count)
        if not count:
            return segment.start + position
    return segments[0].start if segments else 0


def _back(segment: Segment, count: int) -> tuple[int, int]:
    """The position of the line that many lines before a segment's end, and how many lines were missing."""
    with segment.path.open("rb", buffering=0) as file:
        fd = file.fileno()
        at = os.fstat(fd).st_size
        # The newline that ends the last line has to be passed as well.
        newlines = count + 1
        while at > 0:
            begin = max(0, at - _STEP_BYTES)
            data = os.pread(fd, at - begin, begin)
            there = data.count(b"\n")
            if there >= newlines:
                return begin + _from_the_end(data, newlines) + 1, 0
            newlines -= there
            at = begin
    return 0, newlines - 1


def _from_the_end(data: bytes, number: int) -> int:
    place = len(data)
    for _ in range(number):
        place = data.rfind(b"\n", 0, place)
    return place
