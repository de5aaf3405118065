"""Deleting a channel: its two directories get another name at once, and their files go when nothing speaks of it.

A deletion has a number, which stands in its frame and in the new name. A recovery that finds the frame looks for that
name: if it is there the deletion was done, and a directory of the channel's name belongs to a new channel. So the
renamed directories stay until the frame is freed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from keyop.storage import disk
from keyop.storage.directory import DataDirectory

_is_deleted = re.compile(r"\.deleted-[0-9a-f]{16}").fullmatch


def put_away(directory: DataDirectory, channel: str, number: int) -> None:
    """Take the name from a channel's segments and offsets; synced. May be called again. Raises `OSError`."""
    for parent in (directory.channels, directory.subscribers):
        away = parent / f".deleted-{number:016x}"
        if not away.exists():
            try:
                disk.rename(parent / channel, away)
            except FileNotFoundError:
                disk.make_directory(away)
            disk.step("deletion.put_away")
        # Also where it is there: whoever did it was perhaps killed, or had a failing disk, before that.
        disk.sync_path(parent)


def remove(directory: DataDirectory, number: int | None = None) -> None:
    """Remove the files of one deletion, or of all: no frame speaks of them any more. Raises `OSError`."""
    for parent in (directory.channels, directory.subscribers):
        for name in os.listdir(parent):
            if is_deleted(name) and number in (None, int(name[-16:], 16)):
                _remove(parent / name)
                disk.step("deletion.removed")


def is_deleted(name: str) -> bool:
    """Whether this is the name of a directory that is being deleted."""
    return _is_deleted(name) is not None


def _remove(path: Path) -> None:
    """As `shutil.rmtree`, which brings decompressors along. A link is removed, not what it leads to."""
    if path.is_symlink():
        path.unlink()
        return
    for parent, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in directories:
            _rmdir(os.path.join(parent, name))
    _rmdir(path)


def _rmdir(path: str | Path) -> None:
    os.unlink(path) if os.path.islink(path) else os.rmdir(path)
