"""How long a message takes from `publish` on one host to the handler on another."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.contender import Contender, rival_line
from benchmarks.crew import Start, run_crew
from benchmarks.federation import echo
from benchmarks.federation.site import DOWN, RELAYED, UP, Certificates, site
from benchmarks.figure import Measurement, Room, Title
from benchmarks.latency import receive, send
from benchmarks.ours import keyop_at

_WAYS = {
    UP: "publish on the client to handler on the hub",
    DOWN: "publish on the hub to handler on the client",
    RELAYED: "client, hub, client",
}
DISK, ECHO = "federation.disk", "federation.echo"
TITLES = {
    f"{DISK}.p50": Title("write + fdatasync, gaps of 2 ms, p50", "µs", 0),
    **{
        f"{ECHO}.{part}": Title(f"a record there and back, TLS WebSocket, gaps of 2 ms, {part}", "µs", 0)
        for part in ("p50", "p99")
    },
    **{
        f"federation.{mode}.{way}.{part}": Title(f"{words}, {mode}, gaps of 2 ms, {part}", "µs", 0)
        for mode in ("strict", "periodic")
        for way, words in _WAYS.items()
        for part in ("p50", "p99")
    },
}

_GAP_S = 0.002
_WARM_UP = 100


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """The floors, then each way, strict and periodic."""
    keys = {contender.key for contender in contenders}
    if "floor" in keys:
        yield Measurement(DISK, "floor", _disk)
    if "echo" in keys:
        yield Measurement(ECHO, "echo", _echo)
    if "keyop" in keys:
        for strict in (True, False):
            run = functools.partial(_latency, strict=strict)
            yield Measurement(f"federation.{'strict' if strict else 'periodic'}", "keyop", run)


def _latency(room: Room, strict: bool) -> Mapping[str, float]:
    mode = "strict" if strict else "periodic"
    found: dict[str, float] = {}
    with site(room.place, strict=strict) as hosts:
        hosts.start_hub("one", "two")
        hosts.start_client("one", publish=[UP, RELAYED], subscribe=[DOWN])
        hosts.start_client("two", publish=[], subscribe=[RELAYED])
        for way, origin, target in ((UP, "one", "hub"), (DOWN, "hub", "one"), (RELAYED, "one", "two")):
            took_ns = _one_way(hosts.data_dir(origin), hosts.data_dir(target), way, room.scale(1000))
            found |= _parts(f"federation.{mode}.{way}", took_ns)
    return found


def _one_way(origin: Path, target: Path, channel: str, count: int) -> list[int]:
    def work(rank: int, start: Start) -> list[int]:
        if rank == 0:
            return receive(keyop_at(target), channel, count, start)
        send(keyop_at(origin), channel, count, start)
        return []

    return run_crew(2, work)[0]


def _parts(key: str, took_ns: list[int]) -> dict[str, float]:
    took_ns.sort()
    return {f"{key}.p50": took_ns[len(took_ns) // 2] / 1e3, f"{key}.p99": took_ns[len(took_ns) * 99 // 100] / 1e3}


def _disk(room: Room) -> Mapping[str, float]:
    """The same line, appended and synced, with the same gaps: a disk is slower after a pause."""
    file = os.open(room.place / "floor", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    took_ns = []
    try:
        for number in range(_WARM_UP + room.scale(1000)):
            time.sleep(_GAP_S)
            began = time.monotonic_ns()
            os.write(file, rival_line(number))
            os.fdatasync(file)
            took_ns.append(time.monotonic_ns() - began)
    finally:
        os.close(file)
    return {f"{DISK}.p50": _parts(DISK, took_ns[_WARM_UP:])[f"{DISK}.p50"]}


def _echo(room: Room) -> Mapping[str, float]:
    certificates = Certificates(room.place)
    hub, client = certificates.issue("hub"), certificates.issue("client")
    count = _WARM_UP + room.scale(1000)
    took_ns = echo.there_and_back(hub, client, rival_line(0)[:-1], count, _GAP_S)
    return _parts(ECHO, took_ns[_WARM_UP:])
