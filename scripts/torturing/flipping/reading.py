"""What subscribers get out of a directory's channels, with keyop's own reader."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from keyop.messages.envelope import BadLine, Envelope, Fault, decode_line_raw
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import Event, SegmentReader


class Reading:
    """All channels from their beginnings."""

    def __init__(self, directory: DataDirectory) -> None:
        self.delivered: dict[str, dict[int, bytes]] = {}
        """Channel → offset → the line of a message that a handler gets."""
        self.damaged: set[tuple[str, int]] = set()
        """(channel, offset) of lines that are counted as damaged."""
        self.other_versions: set[tuple[str, int]] = set()
        self.gaps = 0
        self.said: list[str] = []
        """What subscribers log of segments: gaps, overlaps, torn ends."""
        for name in sorted(os.listdir(directory.channels)):
            self.delivered[name] = {}
            self._read(directory.channel(name), name)

    def _read(self, path: Path, name: str) -> None:
        reader = SegmentReader(path, 0)
        delivered = self.delivered[name]
        try:
            while batch := reader.read_batch(relist=True):
                offset = batch.start
                for line in batch.lines:
                    self._take(name, delivered, offset, line)
                    offset += len(line) + 1
        finally:
            reader.close()
        self.said += [str(event) for event in reader.events]
        passed_over = (event for event in reader.events if event.event in (Event.TORN, Event.OVERSIZED))
        self.damaged.update((name, event.from_offset) for event in passed_over)
        self.gaps += sum(event.event in (Event.GAP, Event.EVICTED) for event in reader.events)

    def _take(self, name: str, delivered: dict[int, bytes], offset: int, line: bytes) -> None:
        found = _decode(line)
        if isinstance(found, Envelope):
            delivered[offset] = line
        elif found.fault is Fault.OTHER_VERSION:
            self.other_versions.add((name, offset))
            self.said.append(f"{name} at {offset}: {found.reason}")
        else:
            self.damaged.add((name, offset))
            self.said.append(f"{name} at {offset}: {found.reason}")
            if found.envelope is not None:
                delivered[offset + found.start] = line[found.start :]


@lru_cache(maxsize=4096)
def _decode(line: bytes) -> Envelope | BadLine:
    return decode_line_raw(line)


def is_json(line: bytes) -> bool:
    """Whether a line is one whole JSON object; bytes that are not UTF-8 are read as U+FFFD, as Go reads them."""
    try:
        return isinstance(json.loads(line.decode(errors="replace")), dict)
    except ValueError:
        return False


def changed_keys(before: bytes, after: bytes) -> list[str]:
    """Which parts of a message are not what they were."""
    first, second = _parts(before), _parts(after)
    return sorted(key for key in first if first[key] != second[key])


@lru_cache(maxsize=4096)
def _parts(line: bytes) -> dict[str, Any]:
    found = _decode(line)
    assert isinstance(found, Envelope)
    names = ("id", "ts", "channel", "origin", "payload_type", "correlation_id", "service_name", "route")
    return {name: getattr(found, name) for name in names} | {"payload": bytes(found.payload)}
