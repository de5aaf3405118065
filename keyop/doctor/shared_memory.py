"""Whether /dev/shm has room for the processes that come, and is the one that the others see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keyop.doctor.finding import Finding
from keyop.doctor.mounts import mount_of
from keyop.doctor.space import format_size
from keyop.doctor.subject import Subject
from keyop.ipc import layout
from keyop.ipc.board import board_bytes

PLACE = Path("/dev/shm")
# The two semaphores of a process are a page each.
PROCESS_BYTES = layout.PORT_SIZE_BYTES + 2 * 4096
_FEWEST = 2
_FEW = 32


def check(subject: Subject) -> Iterator[Finding]:
    """Size, permissions, and whether it belongs to a container."""
    if not PLACE.is_dir():
        if os.uname().sysname == "Linux":
            yield _problem(f"there is no {PLACE}", "mount -t tmpfs -o mode=1777 tmpfs /dev/shm")
        return
    mount = mount_of(PLACE)
    if mount is not None and mount.kind != "tmpfs":
        text = f"{PLACE} is on {mount.kind}: rings that should be in memory are written to a disk"
        yield Finding("shared-memory", "warning", text, "mount -t tmpfs -o mode=1777 tmpfs /dev/shm")
    if mount is not None and "ro" in mount.options:
        yield _problem(f"{PLACE} is mounted read-only", "mount -o remount,rw /dev/shm")
        return
    if not os.access(PLACE, os.W_OK | os.X_OK):
        yield _problem(f"{PLACE} may not be written by user {os.geteuid()}", "chmod 1777 /dev/shm")
        return
    yield _room(subject)
    if in_container():
        yield Finding(
            "shared-memory",
            "note",
            "this is a container: its /dev/shm is its own, and small unless told",
            "containers that share a data directory share this too: docker run --ipc=container:NAME, --shm-size=256m",
        )


def _room(subject: Subject) -> Finding:
    status = os.statvfs(PLACE)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    board = board_bytes(subject.channel_count)
    processes = max(0, free - board) // PROCESS_BYTES
    values = {"size_bytes": size, "free_bytes": free, "board_bytes": board, "processes": processes}
    text = (
        f"{format_size(free)} of {format_size(size)} are free in {PLACE}: room for a writer and {processes:,} more "
        "processes"
    )
    way = "make it larger: mount -o remount,size=256m /dev/shm (docker run --shm-size=256m)"
    if processes < _FEWEST:
        return Finding("shared-memory", "problem", text, way, values)
    if processes < _FEW:
        return Finding("shared-memory", "warning", text, way, values)
    return Finding("shared-memory", "ok", text, "", values)


def in_container() -> bool:
    """Whether this is a container, by the marks that Docker, Podman and systemd-nspawn leave."""
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container"))


def _problem(text: str, remedy: str) -> Finding:
    return Finding("shared-memory", "problem", text, remedy)
