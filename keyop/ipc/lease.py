"""Leases: files in ``run/`` whose ``flock`` says that a process is alive. Never a pid, never a heartbeat.

A lock falls with the process that held it, whatever ended it, so it cannot be stale.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from keyop.ownership import open_given

PORT_PREFIX = "port-"
DRAFT_PREFIX = ".new-"
WRITER_LOCK = "writer.lock"
SUPERVISED = "supervised"
SPAWN_LOCK = "spawn.lock"

# A probe holds the lock for a moment; who fails to get it tries for as long as this before it says busy.
PATIENCE_S = 0.3


class Lease:
    """A locked file. Closing it, or the process's end, gives the lock up."""

    __slots__ = ("fd", "path")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def note(self, text: str) -> None:
        """Write something for people to read (a pid, a role) into the file."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text.encode(), 0)

    @property
    def is_in_place(self) -> bool:
        """Whether its file still stands where it was locked. Raises `OSError` where that cannot be looked at."""
        return _is(self.path, self.fd)

    def release(self) -> None:
        """Give the lock up; the file stays."""
        if self.fd >= 0:
            give_up(self.fd)
            self.fd = -1

    def hand_over(self) -> None:
        """Close it here; the lock lives on in a child that was given the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def give_up(fd: int) -> None:
    """Unlock and close. Closing alone would leave the lock to a child that was forked in the meantime."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def acquire(path: Path, patience_s: float = PATIENCE_S) -> Lease | None:
    """Lock a file that stays where it is (made if needed); None if somebody else holds it. Raises `OSError`."""
    deadline = time.monotonic() + patience_s
    while True:
        fd = open_given(path, os.O_RDWR)
        if _lock(fd) and _is(path, fd):
            return Lease(path, fd)
        os.close(fd)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def is_held(path: Path) -> bool:
    """Whether a live process holds this lease. Takes the lock for a moment to find out. Raises `OSError`.

    Shared: two who look at the same moment would each take the other for the holder.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(fd, fcntl.LOCK_SH)
    finally:
        give_up(fd)


def create_port_lease(run_dir: Path, port: str) -> Lease:
    """A lease for a new port, under its draft name: locked before anybody can find it. Raises `OSError`."""
    path = run_dir / f"{DRAFT_PREFIX}{port}"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is(path, fd):
            return Lease(path, fd)
        os.close(fd)  # a writer that starts took it for a dead one's before it was locked


def remove_fallen(path: Path) -> bool:
    """Remove a lease that nobody holds; whether it is gone. Raises `OSError`.

    Locked meanwhile: who has made it and not locked it yet finds its name gone, and makes another.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _lock(fd):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def publish_port_lease(lease: Lease, port: str) -> None:
    """Give the lease the name by which the writer finds the port. Raises `OSError`."""
    path = lease.path.with_name(f"{PORT_PREFIX}{port}")
    lease.path.rename(path)
    lease.path = path


def _lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, fd: int) -> bool:
    """Whether the name still leads to the file that was locked."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
