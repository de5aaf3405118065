"""The torn rest of a last line: what a crash leaves behind, and the only thing that is ever cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keyop.storage import disk
from keyop.storage.segments import Segment

_STEP_BYTES = 64 * 1024


def cut_torn_line(fd: int) -> tuple[int, int]:
    """Cut what follows a file's last newline; return the length that is left and how much was cut. Raises `OSError`."""
    length = disk.size(fd)
    whole = 0
    at = length
    while at > 0:
        begin = max(0, at - _STEP_BYTES)
        newline = os.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            whole = begin + newline + 1
            break
        at = begin
    if whole < length:
        disk.truncate(fd, whole)
    return whole, length - whole


class Cut(NamedTuple):
    """What was cut from one segment."""

    path: Path
    length: int
    """What is left of it."""
    torn_bytes: int

    def __str__(self) -> str:
        """The sentence for the log."""
        return f"{self.path}: {self.torn_bytes} bytes at {self.length} were cut, the torn rest of a last line"


def cut_torn_end(segments: list[Segment]) -> list[Cut]:
    """Cut the torn rest of a channel's last line, also where empty segments follow it. Raises `OSError`.

    The next segments are made before the frame that fills them. A power cut may leave these, and of the line that was
    to stand before them only the length.
    """
    cuts = []
    for segment in reversed(segments):
        fd = disk.open_file(segment.path, os.O_RDWR)
        try:
            length, torn_bytes = cut_torn_line(fd)
        finally:
            os.close(fd)
        if torn_bytes:
            cuts.append(Cut(segment.path, length, torn_bytes))
        if length:
            break
    return cuts


def drop_segments_ahead(segments: list[Segment], furthest: Callable[[], int] = lambda: 0) -> list[Path]:
    """Remove empty segments at the end of the list that do not begin where the one before them ends; which they were.

    They were made for a commit that a crash prevented. Nothing ever stood in them, and left there they would be a gap
    in the channel, as if something had been lost. A subscriber that has been there (``furthest``) proves that something
    was: then the gap is real (an old Go directory that lost a file), and offsets must not be given twice.

    Raises `OSError`.
    """
    dropped = []
    while len(segments) > 1 and segments[-1].path.stat().st_size == 0:
        before, ahead = segments[-2:]
        end = before.start + before.path.stat().st_size
        if end == ahead.start or end < min(ahead.start, furthest()):
            break
        disk.unlink(ahead.path)
        segments.pop()
        dropped.append(ahead.path)
    return dropped
