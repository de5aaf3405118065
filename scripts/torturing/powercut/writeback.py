"""The kernel writes pages back when it likes. In seconds of work it would hardly come to that, so it is asked to."""

from __future__ import annotations

import ctypes
import os
import random
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYNC_FILE_RANGE_WRITE = 2
_PAGE_BYTES = 4096
_WHOLE_FILE_SYSTEM = 0.05


def write_back_something(directory: Path, dice: random.Random) -> None:
    """Have a file or a part of it written, without a flush; now and then everything, as happens every few seconds."""
    files = [Path(place, name) for place, _, names in os.walk(directory) for name in names]
    if not files:
        return
    try:
        # The newest segments are what is written to.
        file = os.open(dice.choice(sorted(files)[-20:] if dice.random() < 0.3 else files), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # removed meanwhile
    try:
        if dice.random() < _WHOLE_FILE_SYSTEM:
            _LIBC.syncfs(file)
            return
        begin = length = 0
        if dice.random() < 0.5:
            begin = dice.randrange(os.fstat(file).st_size // _PAGE_BYTES + 1) * _PAGE_BYTES
            length = _PAGE_BYTES
        _LIBC.sync_file_range(file, ctypes.c_int64(begin), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(file)
