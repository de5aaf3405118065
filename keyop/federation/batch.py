"""A frame of records from the peer, read record by record as they are needed."""

from __future__ import annotations

from collections.abc import Iterator

from keyop.federation.record import Fault, Record, read_record
from keyop.federation.wire import CloseCode, WireError, spans

_MAX_ACK_ID = 1_024


class Batch:
    """A frame of records from the peer. It waits for `Session.committed` or `Session.commit_failed`."""

    __slots__ = ("_frame", "_record_bytes", "count", "last_id", "number", "size_bytes")

    def __init__(self, number: int, frame: bytes, record_bytes: int, max_records: int) -> None:
        """Raises WireError if the frame is no sequence of records."""
        self.number = number
        """1 for the first of the connection, then counted up."""
        self.count = 0
        """How many records it has, good and bad."""
        self.last_id = ""
        """The id of its last record, for the acknowledgement; "" where that cannot be read."""
        self.size_bytes = len(frame)
        """Its size."""
        self._frame = frame
        self._record_bytes = record_bytes
        self._look(max_records)

    def _look(self, max_records: int) -> None:
        last = (0, 0)
        for last in spans(self._frame):  # noqa: B007
            self.count += 1
            if self.count > max_records:
                raise WireError(f"a frame of more than {max_records:,} records", CloseCode.TOO_BIG)
        if self.count:
            record = read_record(self._frame[slice(*last)], self._record_bytes)
            if record.fault is not Fault.UNREADABLE and len(record.head.id) <= _MAX_ACK_ID:
                self.last_id = record.head.id

    def records(self) -> Iterator[Record]:
        """Its records in their order, bad ones too: look at `fault`.

        They are read one by one as they are taken, so that no more than what the caller keeps is in memory.
        """
        frame, record_bytes = self._frame, self._record_bytes
        for start, end in spans(frame):
            yield read_record(frame[start:end], record_bytes)
