"""What the kernel says of a device: whether a file system found itself damaged, which is no fault of keyop."""

from __future__ import annotations

import os
import re
from typing import Self

_RECORD_BYTES = 8192
_DAMAGE = (
    r"EXT4-fs error \(device {device}\)|XFS \({device}\): .*([Cc]orruption|CRC error|Internal error|I/O Error)"
    r"|BTRFS (error|critical) \(device {device}"
)


class KernelLog:
    """The records from now on; none where the kernel's log cannot be read."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._fd = -1

    def damage(self, device: str) -> list[str]:
        """What a file system on a device (``loop3``) has said of damage since then."""
        pattern = re.compile(_DAMAGE.format(device=re.escape(device)))
        return [text for text in self._records() if pattern.search(text)]

    def _records(self) -> list[str]:
        texts: list[str] = []
        while self._fd >= 0:
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # some were overwritten before they were read
            except OSError:
                break
            texts.append(record.decode(errors="replace").partition(";")[2].splitlines()[0])
        return texts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
