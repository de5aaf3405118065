"""Which bits a directory has, and in what each of them stands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.frame import Frame, padded, parse
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import FIRST_FRAME_BYTES, parse_header

# Behind the last frame there is nothing but zeros, or what earlier uses left: not every bit of it is another case.
_BEHIND_BYTES = 64
_BEHIND_BITS = 500
_FREE = "free space of the journal"


class Region(NamedTuple):
    """A stretch of a file."""

    path: str
    start: int
    end: int
    what: str
    """``segment``, ``offset file``, ``frame``, …: the rows of the table."""
    frame: Frame | None = None


class Bit(NamedTuple):
    """One bit of a file."""

    region: Region
    number: int

    def __str__(self) -> str:
        return f"bit {self.number} ({self.region.what}) of {'/'.join(Path(self.region.path).parts[-3:])}"


def regions(directory: DataDirectory) -> list[Region]:
    """All files of a directory."""
    files = [path for path in sorted(directory.path.rglob("*")) if path.is_file() and path.name not in NAMES]
    found = [Region(str(path), 0, path.stat().st_size, _what(path)) for path in files]
    for name in NAMES:
        found += _journal(directory.journal / name)
    return found


def _what(path: Path) -> str:
    if path.suffix == ".jsonl":
        return "segment"
    if path.suffix == ".offset":
        return "offset file"
    if path.parent.name == "spill":
        return "spill file"
    if path.name in ("id", "attempts"):
        return f"run/{path.name}"
    return "run/, for people"


def _journal(path: Path) -> Iterator[Region]:
    buffer = path.read_bytes()
    found = parse_header(buffer)
    name = str(path)
    if found is None:
        yield Region(name, 0, FIRST_FRAME_BYTES, "header of a free journal file")
        yield Region(name, FIRST_FRAME_BYTES, len(buffer), _FREE)
        return
    yield Region(name, 0, FIRST_FRAME_BYTES, "journal header")
    at = FIRST_FRAME_BYTES
    while (frame := parse(buffer, at, found[0])) is not None:
        yield Region(name, at, at + frame.length, "frame", frame)
        if frame.length < padded(frame.length):
            yield Region(name, at + frame.length, at + padded(frame.length), "padding of a frame")
        at += padded(frame.length)
    yield Region(name, at, len(buffer), _FREE)


def every_bit(found: list[Region], chance: random.Random) -> Iterator[Bit]:
    """All bits; of the journal's free space those right behind the last frame, and some more."""
    for region in found:
        if region.what == _FREE:
            first, last = region.start * 8, region.end * 8
            near = min(last, first + _BEHIND_BYTES * 8)
            yield from (Bit(region, number) for number in range(first, near))
            some = chance.sample(range(near, last), min(_BEHIND_BITS, last - near))
            yield from (Bit(region, number) for number in sorted(some))
        else:
            yield from (Bit(region, number) for number in range(region.start * 8, region.end * 8))


def some_bits(found: list[Region], chance: random.Random, count: int) -> list[Bit]:
    """So many of them; the journal's free space counts as little as in `every_bit`."""
    regions_ = [region for region in found if region.end > region.start]
    weights = [min(region.end - region.start, _most(region)) for region in regions_]
    chosen = chance.choices(regions_, weights, k=count)
    return [Bit(region, chance.randrange(region.start * 8, region.end * 8)) for region in chosen]


def _most(region: Region) -> int:
    return _BEHIND_BYTES + _BEHIND_BITS // 8 if region.what == _FREE else region.end


def lines_of(frame: Frame) -> dict[str, list[int]]:
    """Channel → offsets of the lines that a frame holds."""
    found: dict[str, list[int]] = {}
    for item in frame.entries():
        if item.kind == entry.APPEND:
            offsets = found.setdefault(item.channel.decode(), [])
            at = item.value
            for line in item.data.split(b"\n")[:-1]:
                offsets.append(at)
                at += len(line) + 1
    return found
