"""The segments of one channel: their names, which there are, and where in them an offset may stand.

A record's global offset is the start that its segment's name tells plus its position in the file. Normally a segment
begins where the one before it ends; where it does not, the name is the truth.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

SEGMENT_SUFFIX = ".jsonl"
MAX_LINE_BYTES = 10_485_760
"""The longest line that is read, with its newline: Go's readers hold no more."""

_DIGITS = 20
_MAX_START = 2**63 - 1
_LOOK_BACK_BYTES = 64 * 1024


class Segment(NamedTuple):
    """One file of a channel."""

    start: int
    """Global offset of its first byte."""
    path: Path


def segment_name(start: int) -> str:
    """The file name of the segment that begins at the global offset `start`."""
    return f"{start:020d}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> int | None:
    """The global offset at which a segment of that file name begins; None if it is no segment's name."""
    digits = name[:_DIGITS]
    # isdigit() alone takes digits of every script.
    if len(digits) != _DIGITS or name[_DIGITS:] != SEGMENT_SUFFIX or not (digits.isascii() and digits.isdigit()):
        return None
    start = int(digits)
    return start if start <= _MAX_START else None


def list_segments(directory: Path) -> tuple[list[Segment], list[str]]:
    """The segments by their start, and the names of all else that lies there, sorted. No directory: neither.

    Raises OSError if the directory cannot be listed.
    """
    segments = []
    foreign = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                start = parse_segment_name(entry.name)
                if start is not None and entry.is_file():
                    segments.append(Segment(start, directory / entry.name))
                else:
                    foreign.append(entry.name)
    except FileNotFoundError:
        return [], []
    return sorted(segments), sorted(foreign)


def channel_end(directory: Path) -> int:
    """The global offset behind the last whole record; 0 if there is none. Raises OSError."""
    segments, _ = list_segments(directory)
    return segment_end(segments[-1]) if segments else 0


def segment_end(segment: Segment) -> int:
    """The global offset behind the last whole record of a segment. Raises OSError."""
    with segment.path.open("rb", buffering=0) as file:
        return segment.start + behind_newline(file.fileno(), os.fstat(file.fileno()).st_size)


def behind_newline(fd: int, position: int) -> int:
    """The greatest position up to this one that is the file's start or directly behind a newline."""
    # Nearly always it is the very position asked for.
    step_bytes = 1
    while position > 0:
        begin = max(0, position - step_bytes)
        newline = os.pread(fd, position - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        position = begin
        step_bytes = _LOOK_BACK_BYTES
    return 0


def align_offset(directory: Path, offset: int) -> tuple[int, str | None]:
    """Where a reader with this offset has to begin, and why if that is somewhere else.

    An offset is good at a segment's start, behind a newline, and so at the end. Else: inside a record, back to the
    record's start; past the end, to the end; below the first segment or in a gap, up to the next segment's start.
    Never skips a whole record that is there. Raises OSError.
    """
    segments, _ = list_segments(directory)
    if not segments:
        return (0, "past the end") if offset else (0, None)
    if offset < segments[0].start:
        return segments[0].start, "below the first segment"
    place = max(index for index, segment in enumerate(segments) if segment.start <= offset)
    segment = segments[place]
    with segment.path.open("rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        if offset - segment.start > size and place + 1 < len(segments):
            return segments[place + 1].start, "in a gap between segments"
        aligned = segment.start + behind_newline(fd, min(offset - segment.start, size))
    if aligned == offset:
        return offset, None
    return aligned, "past the end" if offset - segment.start > size else "inside a record"
