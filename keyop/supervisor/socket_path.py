"""Where the supervisor's socket is. The path of a Unix socket holds 107 bytes, and a data directory may lie deeper."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SOCKET_NAME = "supervisor.sock"
"""In ``run/``."""
_LONGEST_BYTES = 107


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to the same file that is short enough, valid for the block: by way of its directory's descriptor.

    Raises `OSError`.
    """
    if len(os.fsencode(path)) <= _LONGEST_BYTES:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
