"""Where each subscriber of a channel stands, and which message comes next for it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from keyop.inspection import survey
from keyop.messages.envelope import BadLine, Envelope, decode_line_raw
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import align_offset, channel_end


class Standing(NamedTuple):
    """One subscriber, or a federation peer."""

    channel: str
    id: str
    kind: str
    """``subscriber`` or ``peer``."""
    offset: int
    end_offset: int
    """Where the channel ends."""
    lag_bytes: int
    next_id: str | None
    """Of the message that comes next; None if there is none, or it cannot be read."""
    next_ts: str | None
    pid: int | None
    """The process that handles it now."""
    fault: str | None
    """What is wrong with the offset file: it counts as 0 then."""


def standings(directory: DataDirectory, channel: str) -> list[Standing]:
    """All of a channel, by their ids. Raises `DataDirectoryError`, `OSError`."""
    reports = survey.subscribers(directory, channel)
    path = directory.channel(channel)
    end = channel_end(path)
    found = []
    for report in reports:
        following = _next(path, report.offset)
        found.append(
            Standing(
                channel,
                report.id,
                report.kind,
                report.offset,
                end,
                report.lag_bytes,
                following.id if following is not None else None,
                following.ts if following is not None else None,
                report.pid,
                report.fault,
            )
        )
    return found


def _next(path: Path, offset: int) -> Envelope | None:
    reader = SegmentReader(path, align_offset(path, offset)[0])
    try:
        batch = reader.read_batch(relist=True)
    finally:
        reader.close()
    found = decode_line_raw(batch.lines[0]) if batch is not None else None
    return found.envelope if isinstance(found, BadLine) else found
