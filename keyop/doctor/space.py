"""Whether the disk of the data directory has room for what may come."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

MIB = 1_048_576
_LITTLE_BYTES = 1024 * MIB
_FEW_FILES = 1_000


def check(subject: Subject) -> Iterator[Finding]:
    """Bytes and inodes, as this user may have them; and how much the channels may come to."""
    path, settings = subject.nearest, subject.settings
    if path is None or settings is None:
        return
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    values = {"free_bytes": free, "free_inodes": status.f_favail if status.f_files else None}
    needed = 4 * settings.storage.journal_mb * MIB
    if free < needed:
        way = "make room, or point storage.data_dir at a larger disk: publishes wait when it is full"
        text = f"{format_size(free)} are free at {path}; the journal alone may take {format_size(needed // 2)}"
        yield Finding("space", "problem", text, way, values)
    elif free < _LITTLE_BYTES:
        text = f"{format_size(free)} are free at {path}"
        yield Finding("space", "warning", text, "make room: publishes wait when it is full", values)
    else:
        yield Finding("space", "ok", f"{format_size(free)} are free at {path}", "", values)
    if status.f_files and status.f_favail < _FEW_FILES:  # btrfs counts none
        text = f"{status.f_favail:,} files may still be made at {path}: the inodes are nearly used up"
        yield Finding("space", "warning", text, "remove small files there (df -i)", values)
    yield from _growth(subject, free)


def _growth(subject: Subject, free: int) -> Iterator[Finding]:
    settings, directory = subject.settings, subject.directory
    count = subject.channel_count
    if settings is None or directory is None or not count:
        return
    storage = settings.storage
    if storage.max_files <= 0 or storage.compaction_threshold_mb < 0:
        key = "storage.max_files" if storage.max_files <= 0 else "storage.compaction_threshold_mb"
        text = f"channels grow without limit ({key}): {format_size(free)} are left for {count:,} of them"
        yield Finding("space", "note", text, "watch the disk, or set storage.retention")
        return
    used = sum(path.stat().st_size for path in directory.channels.glob("*/*.jsonl"))
    most = count * storage.max_files * storage.compaction_threshold_mb * MIB
    if most - used > free:
        have = f"they have {format_size(used)}, and {format_size(free)} are free"
        text = f"{count:,} channels may grow to {format_size(most)}; {have}"
        way = "lower storage.max_files or storage.compaction_threshold_mb, or set storage.retention"
        yield Finding("space", "note", text, way, {"most_bytes": most, "used_bytes": used})


def format_size(length: int) -> str:
    """``512 KiB``, ``64 MiB``, ``1.5 GiB``."""
    if length < MIB:
        return f"{length // 1024:,} KiB"
    return f"{length / MIB / 1024:,.1f} GiB" if length >= 1024 * MIB else f"{length / MIB:,.0f} MiB"
