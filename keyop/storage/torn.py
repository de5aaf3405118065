"""The torn rest of a last line: what a crash leaves behind, and the only thing that is ever cut."""

from __future__ import annotations

import os
from pathlib import Path

from keyop.storage import disk

_STEP_BYTES = 64 * 1024


def cut_torn_line(fd: int) -> tuple[int, int]:
    """Cut what follows a file's last newline; return the length that is left and how much was cut. Raises `OSError`."""
    length = disk.size(fd)
    whole = 0
    at = length
    while at > 0:
        begin = max(0, at - _STEP_BYTES)
        newline = os.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            whole = begin + newline + 1
            break
        at = begin
    if whole < length:
        disk.truncate(fd, whole)
    return whole, length - whole


def torn_note(path: Path, length: int, torn_bytes: int) -> str:
    """The sentence for the log."""
    return f"{path}: {torn_bytes} bytes at {length} were cut, the torn rest of a last line"
