"""How much waits behind an offset, in messages and in time, without reading all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keyop.messages.envelope import line_ts_ns
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import SegmentReader

_SAMPLE_BYTES = 64 * 1024
_MOST_A_LOOK = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """The messages that come next at an offset."""

    offset: int
    messages: int
    bytes: int
    """Of these messages."""
    first_unix_s: float | None
    """The publisher's time of the first one."""

    def messages_in(self, lag_bytes: int) -> tuple[int, bool]:
        """How many there are in so many bytes, and whether that is exact."""
        if not lag_bytes:
            return 0, True
        if lag_bytes == self.bytes:
            return self.messages, True
        return max(1, round(lag_bytes * self.messages / self.bytes)) if self.bytes else 1, False


class Backlog:
    """Samples of all subscribers that lag. A look reads a bounded number of them, in turn."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._looks = 0
        # With the number of the look that took it.
        self._samples: dict[tuple[str, str], tuple[int, Sample]] = {}

    def look(self, lagging: Iterable[tuple[str, str, int, int]]) -> dict[tuple[str, str], Sample]:
        """Channel, id, offset and lag in bytes of each; what is known of them, for some from an earlier look."""
        self._looks += 1
        kept: dict[tuple[str, str], tuple[int, Sample]] = {}
        stale: list[tuple[int, str, str, int]] = []
        for channel, id, offset, lag_bytes in lagging:
            taken, sample = self._samples.get((channel, id), (0, None))
            if sample is not None:
                kept[channel, id] = taken, sample
            if sample is None or sample.offset != offset or sample.bytes != lag_bytes < _SAMPLE_BYTES:
                stale.append((taken, channel, id, offset))
        for _taken, channel, id, offset in sorted(stale)[:_MOST_A_LOOK]:
            kept.pop((channel, id), None)
            found = _sample(self._directory.channel(channel), offset)
            if found is not None:
                kept[channel, id] = self._looks, found
        self._samples = kept
        return {key: sample for key, (_, sample) in kept.items()}


def _sample(path: Path, offset: int) -> Sample | None:
    reader = SegmentReader(path, offset, chunk_bytes=_SAMPLE_BYTES)
    try:
        batch = reader.read_batch(relist=True)
    except OSError:
        return None
    finally:
        reader.close()
    if batch is None:
        return None
    ts_ns = line_ts_ns(batch.lines[0])
    first_unix_s = round(ts_ns / 1e9, 3) if ts_ns is not None and ts_ns > 0 else None
    return Sample(offset, len(batch.lines), batch.end - batch.start, first_unix_s)
