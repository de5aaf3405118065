"""What the objects of one data directory are called in shared memory.

Names come from the identity of ``run/`` (device and inode) and a random id kept in ``run/id``, never from a path: two
bind mounts of a directory are one directory, two copies of it are two. They stay within the 30 characters of macOS.
"""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "/keyop-"
_KEY_DIGITS = 10
_MASK_128 = (1 << 128) - 1
# PCG's 128-bit multiplier (O'Neill 2014).
_MULTIPLIER = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645


class DirectoryIdentity:
    """The key and the 64-bit id of one data directory, and the names made from them."""

    __slots__ = ("id", "key", "owner", "owner_uids")

    def __init__(self, run_dir: Path) -> None:
        """Read ``run/id``, making it if it is not there. Raises `OSError`."""
        status = run_dir.stat()
        mixed = _mix(int(_token(run_dir / "id"), 16), status.st_dev, status.st_ino)
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


def _token(path: Path) -> str:
    """The random id, the same for everybody: made under another name and linked into place."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    draft = path.with_name(f".id-{os.getpid()}-{os.urandom(4).hex()}")
    draft.write_text(os.urandom(16).hex() + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()
