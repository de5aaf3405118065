"""A data directory in one line: how much is there, and who is furthest behind. From names, sizes and offset files."""

from __future__ import annotations

from dataclasses import dataclass

from keyop.inspection import survey
from keyop.names import PEER_PREFIXES
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import list_offsets


@dataclass(frozen=True, slots=True)
class Furthest:
    """A subscriber that is behind."""

    channel: str
    id: str
    lag_bytes: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Offsets are those of the files, which follow within a fraction of a second."""

    channels: int
    bytes: int
    subscribers: int
    """Offset files, those of peers left out."""
    behind: int
    """Those of them that have not handled all."""
    furthest: Furthest | None
    """Of these the one with the most bytes before it."""


def overview(directory: DataDirectory) -> Overview:
    """Raises `DataDirectoryError`, `OSError`."""
    reports = survey.channels(directory)
    lags = [
        Furthest(report.channel, id, max(0, report.end_offset - offset.value))
        for report in reports
        for id, offset in list_offsets(directory.offsets(report.channel))
        if not id.startswith(PEER_PREFIXES)
    ]
    behind = [lag for lag in lags if lag.lag_bytes]
    return Overview(
        channels=len(reports),
        bytes=sum(report.bytes for report in reports),
        subscribers=len(lags),
        behind=len(behind),
        furthest=max(behind, key=lambda lag: lag.lag_bytes, default=None),
    )
