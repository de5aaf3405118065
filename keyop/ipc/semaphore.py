"""POSIX semaphores. A token means "look again", nothing more: lost ones cost a tick, spare ones a look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import posix_ipc

from keyop.errors import SharedMemoryError

_SHM = Path("/dev/shm")


class Semaphore:
    """A named semaphore; `post` is the bound C function, for the hot path."""

    __slots__ = ("_semaphore", "name", "post")

    def __init__(self, name: str, semaphore: Any) -> None:
        self.name = name
        self._semaphore = semaphore
        self.post = semaphore.release

    def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until a token is there. Returns early on a signal and at the time-out.

        The time-out runs on the wall clock (``sem_timedwait``): it shortens a wait, nothing may rely on it.
        """
        try:
            self._semaphore.acquire(timeout_s)
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            pass

    def close(self) -> None:
        """Give the handle back; the name stays."""
        self._semaphore.close()


def create(name: str, owner: tuple[int, int]) -> Semaphore:
    """A new semaphore of value 0. Raises `SharedMemoryError`."""
    try:
        semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREAT | posix_ipc.O_EXCL, mode=0o600, initial_value=0)
    except (OSError, posix_ipc.Error) as error:
        raise SharedMemoryError(f"semaphore {name} cannot be made: {error}") from error
    if owner[0] != os.geteuid():
        _give(name, owner)
    return Semaphore(name, semaphore)


def _give(name: str, owner: tuple[int, int]) -> None:
    """Root made it for the directory's owner. glibc and musl keep semaphores as /dev/shm/sem.*."""
    try:
        os.chown(_SHM / f"sem.{name[1:]}", *owner)
    except FileNotFoundError:
        pass


def open_existing(name: str) -> Semaphore | None:
    """A semaphore that another process made, or None. Raises `SharedMemoryError` if it may not be opened."""
    try:
        return Semaphore(name, posix_ipc.Semaphore(name))
    except posix_ipc.ExistentialError:
        return None
    except (OSError, posix_ipc.Error) as error:
        raise SharedMemoryError(f"semaphore {name} cannot be opened: {error}") from error


def unlink(name: str) -> None:
    """Remove a name; who holds the semaphore open keeps it."""
    try:
        posix_ipc.unlink_semaphore(name)
    except (posix_ipc.ExistentialError, posix_ipc.PermissionsError):
        pass
