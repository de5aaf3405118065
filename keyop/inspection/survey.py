"""What is in a data directory and how far everybody is, from files and shared memory; changes and starts nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from keyop.errors import DataDirectoryError
from keyop.inspection import at_rest, presence
from keyop.inspection.parts import least
from keyop.inspection.presence import AttachedProcess, LiveSubscription
from keyop.messages.envelope import line_ts_ns
from keyop.names import PEER_PREFIXES
from keyop.storage.deletion import is_deleted
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import ParsedOffset, list_offsets
from keyop.storage.parts import places, read_parts
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import Segment, align_offset, channel_end, list_segments

_COUNT_BYTES = 1 << 20
_NEWEST = 2**63


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """One channel."""

    channel: str
    bytes: int
    """In its segments now."""
    segments: int
    first_offset: int
    """Below it everything has been removed."""
    end_offset: int
    records: int | None
    """Lines in its segments; None unless they were asked to be counted."""
    subscribers: int
    """Offset files, those of peers included."""
    last_write: str | None
    """UTC, ISO 8601; None for a channel without segments."""


@dataclass(frozen=True, slots=True)
class SubscriberReport:
    """One offset file, or a live subscription."""

    channel: str
    id: str
    kind: str
    """``subscriber`` or ``peer``."""
    offset: int
    lag_bytes: int
    lag_messages: int
    oldest_pending_s: float | None
    """Age of the message that comes next, by the publisher's clock; None if there is none, or it tells no time."""
    pid: int | None
    """The process that handles it now; of several that share the work, the one that is furthest behind."""
    handled: int | None
    """Of that process, or of all of them, since they subscribed."""
    failed: int | None
    dead_lettered: int | None
    fault: str | None
    """What is wrong with the offset file: it counts as 0 then."""
    parts: int
    """How many processes share its work; 1: it is not shared."""
    parts_held: int
    """How many of them are there now."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The writer and who is attached."""

    data_dir: str
    running: bool
    writer_pid: int | None
    state: str
    """``starting``, ``open``, ``stalled``, ``closing``, ``gone``, ``not running``, or ``unseen``: it runs with another
    /dev/shm or as another user."""
    mode: str | None
    """``strict`` or ``periodic``."""
    sync_interval_ms: int | None
    stalled_errno: int | None
    stalled: str | None
    """Why it waits, as text."""
    supervised: bool
    at_rest: bool
    """Whether the journal owes the other files nothing at this moment: see `keyop.inspection.at_rest`."""
    attached: list[AttachedProcess]
    counters: dict[str, int]


# ---- channels


def channel_names(directory: DataDirectory) -> list[str]:
    """The directories under ``channels/``, sorted. Raises `DataDirectoryError`, `OSError`."""
    directory.require()
    with os.scandir(directory.channels) as entries:
        return sorted(item.name for item in entries if item.is_dir() and not is_deleted(item.name))


def subscriber_ids(directory: DataDirectory, channel: str) -> list[str]:
    """The names of a channel's offset files, sorted."""
    return [id for id, _ in list_offsets(directory.offsets(channel))]


def require_channel(directory: DataDirectory, channel: str) -> None:
    """Raise `DataDirectoryError` unless the directory knows the channel."""
    directory.require()
    if not directory.channel(channel).is_dir() and not directory.offsets(channel).is_dir():
        names = channel_names(directory)
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none"
        raise DataDirectoryError(f"{directory.path}: there is no channel {channel!r} (there are: {known})")


def channels(directory: DataDirectory, *, count: bool = False) -> list[ChannelReport]:
    """All channels; with ``count`` every segment is read for the number of records. Raises as `channel_names`."""
    return [_channel(directory, name, count) for name in channel_names(directory)]


def _channel(directory: DataDirectory, name: str, count: bool) -> ChannelReport:
    path = directory.channel(name)
    segments, _ = list_segments(path)
    total = 0
    newest_s = 0.0
    for segment in segments:
        try:
            status = segment.path.stat()
        except FileNotFoundError:
            continue
        total += status.st_size
        newest_s = max(newest_s, status.st_mtime)
    return ChannelReport(
        channel=name,
        bytes=total,
        segments=len(segments),
        first_offset=segments[0].start if segments else 0,
        end_offset=channel_end(path),
        records=_count(segments, 0, _NEWEST) if count else None,
        subscribers=len(list_offsets(directory.offsets(name))),
        last_write=datetime.fromtimestamp(newest_s, UTC).isoformat() if newest_s else None,
    )


# ---- subscribers


def subscribers(directory: DataDirectory, channel: str | None = None) -> list[SubscriberReport]:
    """How far every subscriber and peer is, of one channel or of all. Raises `DataDirectoryError`, `OSError`."""
    if channel is None:
        directory.require()
        # What begins with a dot is no channel: the memories of patterns.
        names = sorted(path.name for path in directory.subscribers.glob("[!.]*") if path.is_dir())
    else:
        require_channel(directory, channel)
        names = [channel]
    live = presence.holders(directory)
    names = sorted({*names, *(held_channel for held_channel, _ in live if channel in (None, held_channel))})
    return [report for name in names for report in _subscribers_of(directory, name, live)]


def _subscribers_of(
    directory: DataDirectory, channel: str, live: dict[tuple[str, str], list[LiveSubscription]]
) -> list[SubscriberReport]:
    filed = dict(list_offsets(directory.offsets(channel)))
    for held_channel, id in live:
        if held_channel == channel:
            filed.setdefault(id, ParsedOffset(0, True, None))
    if not filed:
        return []
    path = directory.channel(channel)
    offsets = {id: least(directory, parsed.value, live.get((channel, id), [])) for id, parsed in filed.items()}
    end = channel_end(path)
    pending = _pending(path, [*offsets.values()])
    reports = []
    for id in sorted(filed):
        held = live.get((channel, id), [])
        offset = offsets[id]
        reports.append(
            SubscriberReport(
                channel=channel,
                id=id,
                kind="peer" if id.startswith(PEER_PREFIXES) else "subscriber",
                offset=offset,
                lag_bytes=max(0, end - offset),
                lag_messages=pending[offset],
                oldest_pending_s=_age_s(path, offset) if pending[offset] else None,
                pid=min(held, key=lambda one: one.offset or 0).pid if held else None,
                handled=sum(one.handled for one in held) if held else None,
                failed=sum(one.failed for one in held) if held else None,
                dead_lettered=sum(one.dead_lettered for one in held) if held else None,
                fault=filed[id].damaged,
                parts=held[0].parts if held else _parts(directory, channel, id, filed[id]),
                parts_held=len(held),
            )
        )
    return reports


def _parts(directory: DataDirectory, channel: str, id: str, parsed: ParsedOffset) -> int:
    return len(places(parsed.value, read_parts(directory.parts_file(channel, id)))[0])


def _age_s(path: Path, offset: int) -> float | None:
    reader = SegmentReader(path, align_offset(path, offset)[0])
    try:
        batch = reader.read_batch(relist=True)
    finally:
        reader.close()
    ts_ns = line_ts_ns(batch.lines[0]) if batch is not None else None
    return None if ts_ns is None else max(0.0, (time.time_ns() - ts_ns) / 1e9)


def _pending(path: Path, offsets: Iterable[int]) -> dict[int, int]:
    """How many records begin at each offset or later, in one pass over the files."""
    segments, _ = list_segments(path)
    cuts = sorted({*offsets, _NEWEST})
    between = {low: _count(segments, low, high) for low, high in pairwise(cuts)}
    pending = {}
    total = 0
    for low in reversed(cuts[:-1]):
        total += between[low]
        pending[low] = total
    return pending


def _count(segments: list[Segment], low: int, high: int) -> int:
    """The newlines from one global offset to another."""
    lines = 0
    for segment in segments:
        if segment.start >= high:
            break
        try:
            lines += _count_in(segment, max(0, low - segment.start), high - segment.start)
        except FileNotFoundError:
            continue  # removed meanwhile
        low = max(low, segment.start)
    return lines


def _count_in(segment: Segment, position: int, end: int) -> int:
    lines = 0
    with segment.path.open("rb", buffering=0) as file:
        fd = file.fileno()
        while position < end and (data := os.pread(fd, min(_COUNT_BYTES, end - position), position)):
            lines += data.count(b"\n")
            position += len(data)
    return lines


# ---- status


def status(directory: DataDirectory) -> StatusReport:
    """The writer's state and who is attached. Raises `DataDirectoryError`."""
    directory.require()
    running = presence.writer_lives(directory)
    board = presence.writer_state(directory) if running else None
    stalled = board is not None and board.state == "stalled"
    errno = board.stall_errno if board is not None and stalled else None
    return StatusReport(
        data_dir=os.path.abspath(directory.path),
        running=running,
        writer_pid=presence.writer_pid(directory) if running else None,
        state="not running" if not running else "unseen" if board is None else board.state,
        mode=None if board is None else "periodic" if board.sync_interval_ms else "strict",
        sync_interval_ms=None if board is None else board.sync_interval_ms,
        stalled_errno=errno,
        stalled=os.strerror(errno) if errno else None,
        supervised=presence.is_supervised(directory),
        at_rest=_is_at_rest(directory),
        attached=presence.attached(directory),
        counters={} if board is None else board.counters,
    )


def _is_at_rest(directory: DataDirectory) -> bool:
    try:
        return at_rest.is_at_rest(directory)
    except OSError:
        return False  # a failing disk is what this report is asked for
