"""Writing a transaction that is too large for the ring to a file of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from zlib import crc32

from keyop.errors import PublishTimeout
from keyop.ownership import open_given
from keyop.protocol import entry
from keyop.storage import disk

_BACKOFF_S = 0.2


def write_spill(path: Path, entries: bytes, deadline: float | None = None) -> bytes:
    """Write and sync the file and its name; the ring record that names it.

    A full disk is waited for. Raises `PublishTimeout` if it still is full at the deadline.
    """
    while True:
        try:
            _write(path, entries)
        except OSError as error:
            remove_spill(path)
            if error.errno not in disk.WAIT_ERRNOS:
                raise
            if deadline is not None and time.monotonic() + _BACKOFF_S > deadline:
                raise PublishTimeout(
                    f"{path}: {error.strerror}; nothing of the message was published within the time limit"
                ) from error
            time.sleep(_BACKOFF_S)
        else:
            return entry.SPILL_RECORD.pack(len(entries), crc32(entries)) + path.name.encode()


def remove_spill(path: Path) -> None:
    """Remove a file that no record names. Where the disk fails, the writer does when this process has gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


def _write(path: Path, entries: bytes) -> None:
    fd = open_given(path, os.O_WRONLY | os.O_TRUNC)
    try:
        disk.write_at(fd, entries, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    disk.sync_path(path.parent)
