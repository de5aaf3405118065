"""What a process takes of the machine, from /proc: Linux only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the name, which may hold blanks and brackets: see proc_pid_stat(5).
_UTIME, _STIME, _START_TIME, _RSS_PAGES = 11, 12, 19, 21


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment."""

    rss_bytes: int
    """Memory of it that is in RAM, shared parts included."""
    cpu_s: float
    """Processor time since its start, in seconds."""
    started_unix_s: float
    """When it began."""


def usage(pid: int) -> Usage | None:
    """Look at a process; None if it has ended, or where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if len(fields) <= _RSS_PAGES:
        return None
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TIME]) / _TICKS_A_SECOND
    return Usage(
        rss_bytes=int(fields[_RSS_PAGES]) * _PAGE_BYTES,
        cpu_s=(int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_A_SECOND,
        started_unix_s=time.time() - age_s,
    )
