"""Root acts for the owner of a data directory: what it makes there becomes the owner's.

The owner could put a symbolic link there for root to follow, so nothing is opened through one, and only what was made
just now is given away.
"""

from __future__ import annotations

import os
from pathlib import Path


def open_given(path: Path, flags: int, mode: int = 0o644) -> int:
    """Open a file, made if needed, closed on exec. Raises `OSError`."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            try:
                return os.open(path, flags)
            except FileNotFoundError:
                continue  # removed in between
        if os.geteuid() == 0:
            status = path.parent.stat()
            os.fchown(fd, status.st_uid, status.st_gid)
        return fd


def make_given_directory(path: Path) -> None:
    """Make a directory that may be there already. Raises `OSError`."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if os.geteuid() == 0:
        status = path.parent.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
