"""What the objects of one data directory are called in shared memory.

Names come from the identity of ``run/`` (device and inode) and a random id kept in ``run/id``, never from a path: two
bind mounts of a directory are one directory, two copies of it are two. They stay within the 30 characters of macOS.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from zlib import crc32

from keyop.ownership import open_given

PREFIX = "/keyop-"
_KEY_DIGITS = 10
_TOKEN_DIGITS = 32
# Of one of the two: digits, a blank, and the check.
_COPY_BYTES = _TOKEN_DIGITS + 9
_MASK_128 = (1 << 128) - 1
# PCG's 128-bit multiplier (O'Neill 2014).
_MULTIPLIER = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645


class DirectoryIdentity:
    """The key and the 64-bit id of one data directory, and the names made from them."""

    __slots__ = ("id", "key", "owner", "owner_uids")

    def __init__(self, run_dir: Path) -> None:
        """Read ``run/id``, making it if it is not there. Raises `OSError`."""
        status = run_dir.stat()
        mixed = _mix(_token(run_dir / "id"), status.st_dev, status.st_ino)
        self.id = mixed & 0xFFFF_FFFF_FFFF_FFFF
        self.key = f"{mixed >> 64:016x}"[-_KEY_DIGITS:]
        self.owner = (status.st_uid, status.st_gid)
        # Root acts for the owner, and what root made before it gave it away is trusted as well.
        self.owner_uids = (status.st_uid, 0)

    def board(self) -> str:
        """The board's shared memory."""
        return f"{PREFIX}{self.key}-b"

    def writer_semaphore(self) -> str:
        """The semaphore that the writer sleeps on."""
        return f"{PREFIX}{self.key}-w"

    def port(self, port: str) -> str:
        """The shared memory of one attached process; ``port`` is its 8 hex digits."""
        return f"{PREFIX}{self.key}-{port}"

    def slot_page(self, port: str, page: int) -> str:
        """A further page of slots of a port."""
        return f"{PREFIX}{self.key}-{port}{page}"

    def commit_semaphore(self, port: str) -> str:
        """Posted when the port's committed position has moved."""
        return f"{PREFIX}{self.key}-{port}c"

    def data_semaphore(self, port: str) -> str:
        """Posted when a channel that the port follows has grown."""
        return f"{PREFIX}{self.key}-{port}d"


def _mix(token: int, device: int, inode: int) -> int:
    """128 bits that two directories share only by chance. `hashlib` would cost the writer 3.7 MiB for OpenSSL."""
    for value in (device, inode):
        token = (token ^ value) * _MULTIPLIER & _MASK_128
        token ^= token >> 67
    return token


def _token(path: Path) -> int:
    """The random id, the same for everybody."""
    token = _read(path)
    if token is not None:
        return token
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # of several who come first, one makes it
        token = _read(path)
        return _make(path) if token is None else token
    finally:
        os.close(directory)


def _read(path: Path) -> int | None:
    """None if it is not there, or not whole: a power cut can leave that of a file that was never synced.

    It stands there twice, each with its check: with a damaged one nobody would find the rings of those who live.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    for copy in (data[:_COPY_BYTES], data[_COPY_BYTES + 1 :][:_COPY_BYTES]):
        digits = copy[:_TOKEN_DIGITS]
        if copy == _checked(digits):
            return int(digits, 16)
    return None


def _checked(digits: bytes) -> bytes:
    return b"%b %08x" % (digits, crc32(digits))


def _make(path: Path) -> int:
    token = os.urandom(_TOKEN_DIGITS // 2).hex().encode()
    draft = path.with_name(".id.new")
    with os.fdopen(open_given(draft, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write((_checked(token) + b"\n") * 2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return int(token, 16)
