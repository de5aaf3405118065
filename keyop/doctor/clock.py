"""Whether the clock is right, and whether somebody keeps it so."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

_EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)
"""Retention by age believes no time before this."""

_STA_UNSYNC = 0x40
_AHEAD_S = 300.0


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex``; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    )


def check(subject: Subject) -> Iterator[Finding]:
    """The year, the kernel's word on synchronisation, and files that are ahead of now."""
    now = datetime.now(UTC)
    said = f"it is {now:%Y-%m-%dT%H:%M:%SZ}"
    ahead = newest_file_s(subject) - time.time()
    synchronised = is_synchronised()
    values = {"synchronised": synchronised, "ahead_s": round(max(0.0, ahead), 1)}
    if now < _EARLIEST:
        text = f"{said}, says the clock: certificates are not valid yet, and nothing is removed by age"
        yield Finding(
            "clock", "problem", text, "set it: timedatectl set-ntp true; a host without a battery needs NTP", values
        )
    elif ahead > _AHEAD_S:
        text = f"{said}, says the clock, and a channel was written {ahead / 60:,.0f} minutes later than that"
        way = "the clock was wrong, or is now: look at timedatectl; times of messages are those of the clock"
        yield Finding("clock", "warning", text, way, values)
    elif synchronised is False:
        text = f"{said}, and nothing keeps the clock in step: it drifts, and the times of messages with it"
        way = "timedatectl set-ntp true, or install chrony; in a virtual machine the host may do it: compare the time"
        yield Finding("clock", "warning", text, way, values)
    else:
        how = "" if synchronised is None else ", and the clock is kept in step"
        yield Finding("clock", "ok", f"{said}{how}", "", values)


def is_synchronised() -> bool | None:
    """What the kernel knows of it, which needs no rights; None where it does not tell."""
    if sys.platform != "linux":
        return None
    try:
        state = _Timex()
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
            return None
    except (AttributeError, OSError):
        return None
    return not state.status & _STA_UNSYNC


def newest_file_s(subject: Subject) -> float:
    """When a segment was written last, in seconds since 1970; 0 where there is none."""
    directory = subject.directory
    if directory is None:
        return 0.0
    newest = 0.0
    for path in directory.channels.glob("*/*.jsonl"):
        try:
            newest = max(newest, os.stat(path).st_mtime)
        except OSError:
            continue
    return newest
