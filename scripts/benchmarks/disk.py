"""The block device below a directory and its counters of what reached it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_SECTOR_BYTES = 512

# Fields of /sys/block/*/stat, as in the kernel's Documentation/block/stat.rst.
_WRITES, _WRITE_SECTORS, _FLUSHES = 4, 6, 15


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went to a device since some moment, of everybody on the machine."""

    bytes: int
    writes: int
    flushes: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.bytes - earlier.bytes, self.writes - earlier.writes, self.flushes - earlier.flushes)


class Disk:
    """The device that a directory lies on."""

    def __init__(self, stat: Path) -> None:
        self._stat = stat

    def traffic(self, settle: bool = True) -> Traffic:
        """The counters now; ``settle`` has everything written first that the kernel still holds back."""
        if settle:
            os.sync()
            time.sleep(0.05)
        fields = self._stat.read_text().split()
        return Traffic(int(fields[_WRITE_SECTORS]) * _SECTOR_BYTES, int(fields[_WRITES]), int(fields[_FLUSHES]))


def disk_of(place: Path) -> Disk | str:
    """The disk below a directory, or why its counters cannot be had."""
    device = place.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not link.exists():
        return f"no block device below {place} (device {os.major(device)}:{os.minor(device)})"
    folder = link.resolve()
    if (folder / "partition").exists():
        folder = folder.parent
    stat = folder / "stat"
    if not stat.exists():
        return f"no {stat}"
    return Disk(stat) if len(stat.read_text().split()) > _FLUSHES else f"{stat} counts no flushes (kernel before 5.5)"
