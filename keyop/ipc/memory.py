"""Making, opening and mapping shared memory.

``multiprocessing.shared_memory`` will not do: its resource tracker unlinks what other processes still use.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys

import posix_ipc

from keyop.errors import SharedMemoryError
from keyop.ipc import layout

MODE = 0o600


class Memory:
    """One mapped object: ``buffer`` for slices of bytes, ``words`` for live u32 words."""

    __slots__ = ("buffer", "name", "size", "words")

    def __init__(self, name: str, buffer: mmap.mmap) -> None:
        self.name = name
        self.buffer = buffer
        self.size = len(buffer)
        self.words = memoryview(buffer).cast("I")

    def stamp(self, magic: int, directory_id: int) -> None:
        """Write the header that every object begins with; MAGIC last, it says that the rest stands."""
        words = self.words
        words[layout.VERSION] = layout.VERSION_NUMBER
        words[layout.PLATFORM] = layout.PLATFORM_NUMBER
        words[layout.SIZE] = self.size
        words[layout.DIRECTORY_LO] = directory_id & layout.MASK
        words[layout.DIRECTORY_HI] = directory_id >> 32
        words[layout.PID] = os.getpid()
        words[layout.MAGIC] = magic

    def fault(self, magic: int, directory_id: int) -> str | None:
        """Why this object cannot be used, or None."""
        words = self.words
        if words[layout.MAGIC] != magic:
            return "it is not finished, or not ours"
        if words[layout.VERSION] != layout.VERSION_NUMBER:
            return f"its layout is version {words[layout.VERSION]}, ours is {layout.VERSION_NUMBER}"
        if words[layout.PLATFORM] != layout.PLATFORM_NUMBER:
            return "it was made by a process of another word size or C library"
        if words[layout.SIZE] != self.size:
            return f"it says {words[layout.SIZE]} bytes and has {self.size}"
        if words[layout.DIRECTORY_LO] | words[layout.DIRECTORY_HI] << 32 != directory_id:
            return "it belongs to another data directory"
        return None

    def close(self) -> None:
        """Release the view, then the mapping: in the other order `mmap` raises."""
        self.words.release()
        self.buffer.close()


def create(name: str, size: int, owner: tuple[int, int] | None = None) -> Memory:
    """A new zero-filled object, all of its memory allocated.

    ``owner`` is (uid, gid) to give it to; root makes objects for the directory's owner.
    Raises `FileExistsError` if the name is taken and `SharedMemoryError` if shared memory is full or unusable.
    """
    try:
        shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREAT | posix_ipc.O_EXCL, mode=MODE, size=size)
    except posix_ipc.ExistentialError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
    except (OSError, posix_ipc.Error, ValueError) as error:
        raise SharedMemoryError(f"shared memory {name} of {size} bytes cannot be made: {error}") from error
    try:
        # Without this a full /dev/shm is a SIGBUS at the first store, not an error here.
        if sys.platform != "darwin":
            os.posix_fallocate(shared.fd, 0, size)
        if owner is not None and owner[0] != os.geteuid():
            os.fchown(shared.fd, *owner)
        return Memory(name, mmap.mmap(shared.fd, size))
    except OSError as error:
        unlink(name)
        raise SharedMemoryError(_why(name, size, error)) from error
    finally:
        shared.close_fd()


def _why(name: str, size: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.ENOMEM):
        return (
            f"shared memory is full: {name} needs {size} bytes of /dev/shm. "
            "Free some of it, or start the container with a larger one (docker run --shm-size=256m)"
        )
    return f"shared memory {name} of {size} bytes cannot be used: {error}"


def open_existing(name: str, owner_uids: tuple[int, ...]) -> Memory | None:
    """Map an object that another process made; None if there is none (or one that is not finished).

    ``owner_uids`` are the users whose objects are trusted; one of anybody else is a `SharedMemoryError`.
    """
    try:
        shared = posix_ipc.SharedMemory(name)
    except posix_ipc.ExistentialError:
        return None
    except (OSError, posix_ipc.Error) as error:
        raise SharedMemoryError(f"shared memory {name} cannot be opened: {error}") from error
    try:
        status = os.fstat(shared.fd)
        if status.st_uid not in owner_uids or stat.S_IMODE(status.st_mode) & 0o077:
            raise SharedMemoryError(
                f"shared memory {name} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):o}), "
                f"not to the data directory's owner: refused"
            )
        if status.st_size < layout.SLOTS_BYTES // 4:
            return None
        return Memory(name, mmap.mmap(shared.fd, status.st_size))
    finally:
        shared.close_fd()


def unlink(name: str) -> None:
    """Remove a name; the memory stays until the last process has unmapped it."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except (posix_ipc.ExistentialError, posix_ipc.PermissionsError):
        pass
