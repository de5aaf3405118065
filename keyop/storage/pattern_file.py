"""What a subscriber of a pattern has seen: ``subscribers/.patterns/{id}``, one file for each id.

    keyop-patterns 1 8a5d1f03
    {"pattern":"sensors.*","channels":["sensors.attic","sensors.cellar"]}

The number is the CRC-32 of the lines behind it. A pattern without any channel is there, too: that it is known decides
where a channel begins that comes later.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from zlib import crc32

from keyop.ownership import make_given_directory, open_given
from keyop.storage import disk
from keyop.storage.directory import DataDirectory

PATTERNS_DIRECTORY = ".patterns"
DRAFT_PREFIX = ".new-"

_head = re.compile(rb"keyop-patterns 1 ([0-9a-f]{8})\n").match

Seen = dict[str, set[str]]
"""The channels of each pattern."""


class PatternFileDamaged(ValueError):
    """The text says what is wrong with the file."""


def patterns_directory(directory: DataDirectory) -> Path:
    """Where these files are."""
    return directory.subscribers / PATTERNS_DIRECTORY


def pattern_file(directory: DataDirectory, id: str) -> Path:
    """The file of one id."""
    return patterns_directory(directory) / id


def read_seen(path: Path) -> Seen:
    """What the file says; nothing where there is none. Raises `PatternFileDamaged`, `OSError`."""
    try:
        # Not to hang on a named pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    with open(fd, "rb") as file:
        return parse_seen(file.read())


def parse_seen(data: bytes) -> Seen:
    """Raises `PatternFileDamaged`."""
    head = _head(data)
    if head is None:
        raise PatternFileDamaged(f"does not begin as one of ours: {data[:40]!r}")
    body = data[head.end() :]
    if crc32(body) != int(head[1], 16):
        raise PatternFileDamaged("its check does not fit its lines")
    seen: Seen = {}
    for line in body.splitlines():
        try:
            item: Any = json.loads(line)
            seen.setdefault(item["pattern"], set()).update(item["channels"])
        except (ValueError, TypeError, KeyError) as error:
            raise PatternFileDamaged(f"a line is not what it should be: {line[:80]!r}") from error
    return seen


def format_seen(seen: Seen) -> bytes:
    """The bytes of the file."""
    lines = [
        json.dumps({"pattern": pattern, "channels": sorted(channels)}, separators=(",", ":")) + "\n"
        for pattern, channels in sorted(seen.items())
    ]
    body = "".join(lines).encode()
    return b"keyop-patterns 1 %08x\n" % crc32(body) + body


def write_seen(path: Path, seen: Seen) -> None:
    """Replace the file, so that also after a power cut the old one or the new one is there. Raises `OSError`.

    One process at a time.
    """
    make_given_directory(path.parent)
    draft = path.with_name(f"{DRAFT_PREFIX}{path.name}")
    fd = open_given(draft, os.O_WRONLY | os.O_TRUNC)
    try:
        disk.write_at(fd, format_seen(seen), 0)
        disk.sync_data(fd)
    finally:
        os.close(fd)
    disk.rename(draft, path)
    disk.sync_path(path.parent)
    disk.sync_path(path.parent.parent)


def remove_seen(path: Path) -> None:
    """Remove the file, if it is there. Raises `OSError`."""
    if path.parent.is_dir():
        disk.unlink(path)
        disk.sync_path(path.parent)
