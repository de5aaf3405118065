"""What stands in a directory's segments, read without keyop's own reader: the checker must not share its mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_SEGMENT = re.compile(r"(\d{20})\.jsonl")


class Record(NamedTuple):
    """A whole line."""

    offset: int
    """In the channel."""
    envelope: dict[str, Any]

    @property
    def payload(self) -> dict[str, Any]:
        """What was published."""
        said: dict[str, Any] = self.envelope["payload"]
        return said


@dataclass(slots=True)
class ChannelContents:
    """One channel: its records in order, and what is wrong with its files."""

    name: str
    first: int = 0
    """Where its first segment begins: what was before is removed."""
    end: int = 0
    segments: int = 0
    records: list[Record] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    """Lines that are no whole message, with their place."""
    seams: list[str] = field(default_factory=list)
    """Gaps and overlaps between segments."""


def read_channels(directory: Path) -> dict[str, ChannelContents]:
    """All channels of a data directory."""
    channels = directory / "channels"
    names = sorted(path.name for path in channels.iterdir()) if channels.is_dir() else []
    return {name: read_channel(channels / name) for name in names}


def read_channel(directory: Path) -> ChannelContents:
    """One channel."""
    contents = ChannelContents(directory.name)
    starts = sorted(int(found[1]) for path in directory.iterdir() if (found := _SEGMENT.fullmatch(path.name)))
    contents.segments = len(starts)
    for number, start in enumerate(starts):
        if number == 0:
            contents.first = start
        elif start != contents.end:
            kind = "gap" if start > contents.end else "overlap"
            contents.seams.append(f"{kind} between {contents.end} and {start}")
        data = (directory / f"{start:020d}.jsonl").read_bytes()
        contents.end = start + len(data)
        for offset, line in _lines(data, start):
            envelope = _envelope(line, directory.name)
            if isinstance(envelope, str):
                contents.torn.append(f"{directory.name} at {offset}: {envelope}: {line[:80]!r} ({len(line)} bytes)")
            else:
                contents.records.append(Record(offset, envelope))
    return contents


def _lines(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        newline = data.find(b"\n", at)
        end = newline + 1 if newline >= 0 else len(data)
        yield start + at, data[at:end]
        at = end


def _envelope(line: bytes, channel: str) -> dict[str, Any] | str:
    """The message of a line, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return "a line without an end"
    try:
        envelope = json.loads(line)
    except ValueError:
        return "no JSON"
    if not isinstance(envelope, dict) or not {"v", "id", "ts", "channel", "payload"} <= envelope.keys():
        return "no envelope"
    if envelope["channel"] != channel.removesuffix(".replay"):  # what is put back says where it came from
        return f"an envelope of channel {envelope['channel']}"
    if not isinstance(envelope["payload"], dict):
        return "another payload than was published"
    return envelope
