"""What a `.parts` file says: where each of the parts stands that share the work of one subscriber id.

It stands beside the id's offset file, which names the least of them, and counts only together with it: where the two
differ, another program has moved the offset, and all parts go on from there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from keyop.protocol.entry import MAX_PARTS
from keyop.storage import disk
from keyop.storage.offsets import MAX_OFFSET, read_start

PARTS_SUFFIX = ".parts"

_LOOKS = 3
_OURS = re.compile(rb"((?:[0-9]{20}\n)+)([0-9a-f]{8})\n")


class ParsedParts(NamedTuple):
    """What a `.parts` file says."""

    offsets: tuple[int, ...]
    """Of each part, the first first; empty if the file is damaged."""
    damaged: str | None
    """Why the file counts as absent, None if it does not."""


def format_parts(offsets: Sequence[int]) -> bytes:
    """One offset a line, 20 digits each, and at last a CRC-32 of those lines."""
    lines = b"".join(b"%020d\n" % offset for offset in offsets)
    return lines + b"%08x\n" % crc32(lines)


def parse_parts(data: bytes) -> ParsedParts:
    """Read the content of a `.parts` file."""
    match = _OURS.fullmatch(data)
    if match is None:
        return ParsedParts((), "not lines of 20 digits and one of 8" if data else "empty")
    lines, check = match.groups()
    if int(check, 16) != crc32(lines):
        return ParsedParts((), "its check does not fit")
    offsets = tuple(map(int, lines.split()))
    if not 2 <= len(offsets) <= MAX_PARTS or max(offsets) > MAX_OFFSET:
        return ParsedParts((), f"not 2 to {MAX_PARTS} offsets")
    return ParsedParts(offsets, None)


def read_parts(path: Path) -> ParsedParts | None:
    """Read a `.parts` file; None if there is none. Whatever else is wrong with it is in the result, never raised."""
    try:
        return load_parts(path)
    except OSError as error:
        return ParsedParts((), f"cannot be read: {error.strerror}")


def load_parts(path: Path) -> ParsedParts | None:
    """As `read_parts`; raises `OSError` where a failing disk or the want of descriptors is at fault."""
    try:
        found = parse_parts(read_start(path))
        for _ in range(_LOOKS - 1):
            if not found.damaged:
                break
            # The writer overwrites it in place, and a look may catch both halves.
            found = parse_parts(read_start(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in disk.WAIT_ERRNOS:
            raise
        return ParsedParts((), f"cannot be read: {error.strerror}")
    return found


def places(offset: int, parts: ParsedParts | None) -> tuple[tuple[int, ...], str | None]:
    """Where an id's parts stand, by its offset file and its `.parts` file, and why the latter does not count.

    One place where there is no such file, or none that counts.
    """
    if parts is None:
        return (offset,), None
    if parts.damaged is not None:
        return (offset,), parts.damaged
    if min(parts.offsets) != offset:
        return (offset,), f"its least offset is {min(parts.offsets)}, and the offset file says {offset}"
    return parts.offsets, None
