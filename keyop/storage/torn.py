"""The torn rest of a last line: what a crash leaves behind, and the only thing that is ever cut."""

from __future__ import annotations

import os

from keyop.storage import disk

_STEP_BYTES = 64 * 1024


def cut_torn_line(fd: int) -> int:
    """Cut what follows a file's last newline; return the length that is left. Raises `OSError`."""
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
    return whole
