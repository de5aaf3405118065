"""What Linux says about a running process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time and voluntary context switches (each is a sleep, and so a wake-up) of all threads so far."""

    cpu_s: float
    wake_ups: int

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(self.cpu_s - earlier.cpu_s, self.wake_ups - earlier.wake_ups)


def usage(pid: int) -> Usage:
    """Threads that have ended are not counted."""
    cpu_ns = wake_ups = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        # Nanoseconds on a processor: /proc/*/stat counts in ticks of 10 ms, too coarse for an idle process.
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        wake_ups += _number(task / "status", "voluntary_ctxt_switches:")
    return Usage(cpu_ns / 1e9, wake_ups)


def resident_mib(pid: int | None = None) -> float:
    """Resident memory, shared pages (libraries, rings) included."""
    return _number(Path(f"/proc/{pid or os.getpid()}/status"), "VmRSS:") / 1024


def proportional_mib(pid: int | None = None) -> float:
    """Resident memory with each shared page divided among those that have it."""
    return _number(Path(f"/proc/{pid or os.getpid()}/smaps_rollup"), "Pss:") / 1024


def _number(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(f"{key} in {path}")
