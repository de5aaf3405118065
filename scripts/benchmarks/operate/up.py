"""How soon ``keyop up`` is there, and what it takes while nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from benchmarks.contender import Contender
from benchmarks.figure import Measurement, Room, Title
from benchmarks.operate.box import box
from benchmarks.process import Usage, resident_mib, usage

_ROLES = ("supervisor", "writer", "hub", "client", "clerk")
_WHAT = "writer, hub, client and two workers"
TITLES = {
    "operate.up.ready": Title(f"keyop up: {_WHAT} are at work, from the start of the command", "ms", 0),
    **{
        f"operate.up.rss.{role}": Title(f"RSS of the {'worker' if role == 'clerk' else role} under keyop up", "MiB")
        for role in _ROLES
    },
    "operate.up.rss.all": Title(f"RSS of supervisor, {_WHAT}, shared pages counted in each", "MiB"),
    "operate.up.idle.cpu": Title("CPU of all of them together, idle, over 10 s", "% of a core", 2),
    "operate.up.idle.supervisor": Title("CPU of the supervisor among them", "% of a core", 3),
}

_SETTLE_S = 3.0
_IDLE_S = 10.0


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    if any(contender.key == "keyop" for contender in contenders):
        yield Measurement("operate.up", "keyop", _up)


def _up(room: Room) -> Mapping[str, float]:
    with box(room.place) as running:
        pids = running.pids()
        time.sleep(_SETTLE_S)
        before = _usage(pids)
        time.sleep(_IDLE_S)
        after = _usage(pids)
        cpu = {role: (after[role] - before[role]).cpu_s / _IDLE_S * 100 for role in pids}
        resident = {role: resident_mib(pid) for role, pid in pids.items()}
    return {
        "operate.up.ready": running.ready_s * 1e3,
        **{f"operate.up.rss.{role}": resident[role] for role in _ROLES},
        "operate.up.rss.all": sum(resident.values()),
        "operate.up.idle.cpu": sum(cpu.values()),
        "operate.up.idle.supervisor": cpu["supervisor"],
    }


def _usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    return {role: usage(pid) for role, pid in pids.items()}
