"""The envelopes of a channel as lines, to be kept elsewhere or imported into another data directory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from keyop.inspection import lookback
from keyop.inspection.lookback import Where
from keyop.messages.envelope import BadLine, decode_line_raw
from keyop.messages.timestamps import parse_ns
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import Event, SegmentReader
from keyop.storage.segments import align_offset, channel_end


class Export:
    """Iterate over it: whole envelopes as they are stored, up to where the channel ends when this is made."""

    def __init__(
        self,
        directory: DataDirectory,
        channel: str,
        start: Where = "earliest",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        """``start``: where reading begins. Then ``since``, inclusive, and ``until``, exclusive, choose by time.

        An envelope that tells no time is chosen. Raises `OSError`.
        """
        self._path = directory.channel(channel)
        self._since_ns = _ns(since)
        self._until_ns = _ns(until)
        if start == "earliest" and since is not None:
            start = since
        self.offset = align_offset(self._path, lookback.offset_of(self._path, start))[0]
        """Up to where has been read."""
        self.begin = self.offset
        self.end = channel_end(self._path)
        self.exported = 0
        self.notes: list[str] = []
        """What was passed over, a sentence for each; the caller may take them out."""

    def __iter__(self) -> Iterator[bytes]:
        reader = SegmentReader(self._path, self.offset)
        try:
            while self.offset < self.end and (batch := reader.read_batch(relist=True)) is not None:
                self._note_events(reader)
                self.offset = batch.start
                for line in batch.lines:
                    if self.offset >= self.end:
                        break
                    envelope = self._envelope(line)
                    self.offset += len(line) + 1
                    if envelope is not None:
                        self.exported += 1
                        yield envelope
            self._note_events(reader)
        finally:
            reader.close()

    def _note_events(self, reader: SegmentReader) -> None:
        self.notes += [str(event) for event in reader.events if event.event is not Event.FOREIGN]
        reader.events.clear()

    def _envelope(self, line: bytes) -> bytes | None:
        found = decode_line_raw(line)
        if isinstance(found, BadLine):
            outcome = "it is passed over" if found.envelope is None else "its last whole envelope is exported"
            self.notes.append(f"the record at offset {self.offset}: {outcome}: {found.reason}")
            if found.envelope is None:
                return None
            line, found = line[found.start :], found.envelope
        ts_ns = parse_ns(found.ts)
        if ts_ns is not None and not (self._since_ns or 0) <= ts_ns < (self._until_ns or ts_ns + 1):
            return None
        return line


def _ns(time: datetime | None) -> int | None:
    if time is None:
        return None
    moment = time.astimezone(UTC)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
