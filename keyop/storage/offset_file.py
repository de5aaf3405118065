"""Writing offset and `.parts` files: in place, unsynced, so that people can watch them; checkpoints sync them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from keyop.storage import disk
from keyop.storage.offsets import format_offset
from keyop.storage.parts import format_parts


def write_offset(path: Path, offset: int) -> bool:
    """Store an offset; whether a name was made, so that its directory has to be synced. Raises `OSError`.

    A file of our own length is overwritten with one write, which no reader and no power cut sees half of. A new one,
    or one that a Go program wrote, is renamed into place.
    """
    return _write(path, format_offset(offset))


def write_parts(path: Path, offsets: Sequence[int]) -> bool:
    """Store the offsets of parts, as `write_offset` does. A power cut may leave half of a long one: its check tells."""
    return _write(path, format_parts(offsets))


def _write(path: Path, data: bytes) -> bool:
    try:
        fd = disk.open_file(path, os.O_WRONLY)
    except FileNotFoundError:
        fd = -1
    replaces = fd >= 0
    if replaces:
        try:
            if disk.size(fd) == len(data):
                disk.write_at(fd, data, 0)
                return False
        finally:
            os.close(fd)
    # One name for all, as the writer is one: a position of a federation peer may fill the 255 bytes of a name.
    draft = path.with_name(".new")
    fd = disk.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        disk.write_at(fd, data, 0)
        if replaces:
            # A power cut may leave the new name without the bytes, and what the old file said would be gone.
            disk.sync_data(fd)
    finally:
        os.close(fd)
    disk.step("offset.drafted")
    disk.rename(draft, path)
    return True
