"""How many messages a second pass, and what hub and client take of the machine for them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.contender import Contender, rival_line
from benchmarks.crew import Start, run_crew
from benchmarks.federation import echo
from benchmarks.federation.site import DOWN, UP, Certificates, Service, Site, site
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import keyop_at
from benchmarks.process import resident_mib, usage

_WAYS = {UP: "client to hub", DOWN: "hub to client"}
BACKLOG, LIVE = "federation.backlog", "federation.live"
TITLES = {
    **{f"{BACKLOG}.{way}": Title(f"{words}, a backlog, to the handler", "msg/s", 0) for way, words in _WAYS.items()},
    **{f"{LIVE}.{way}": Title(f"{words}, while they are published", "msg/s", 0) for way, words in _WAYS.items()},
    **{
        f"federation.cpu.{way}.{role}": Title(f"CPU of the {role}, {words}, a backlog", "ms for 1,000 messages", 2)
        for way, words in _WAYS.items()
        for role in ("hub", "client")
    },
    **{f"federation.rss.{role}": Title(f"RSS of the {role} after that", "MiB") for role in ("hub", "client")},
}

_BATCH = 500
# What a batch of hub and client holds: see keyop.federation.outbound.TURN_BYTES.
_RECORDS_OF_A_TURN = 500


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """The floor, a backlog, and messages that come all the while."""
    keys = {contender.key for contender in contenders}
    if "echo" in keys:
        yield Measurement(BACKLOG, "echo", _floor)
    if "keyop" in keys:
        yield Measurement(BACKLOG, "keyop", _backlog)
        yield Measurement(LIVE, "keyop", _live)


def _floor(room: Room) -> Mapping[str, float]:
    certificates = Certificates(room.place)
    hub, client = certificates.issue("hub"), certificates.issue("client")
    rate = echo.one_way(hub, client, rival_line(0)[:-1], _RECORDS_OF_A_TURN, room.scale(1000))
    return {f"{BACKLOG}.{way}": rate for way in _WAYS}


def _start(hosts: Site) -> dict[str, Service]:
    return {
        "hub": hosts.start_hub("one"),
        "client": hosts.start_client("one", publish=[UP], subscribe=[DOWN]),
    }


def _backlog(room: Room) -> Mapping[str, float]:
    """The client stands still while the messages are published, and is let go then."""
    batches = room.scale(200)
    found: dict[str, float] = {}
    with site(room.place, strict=True) as hosts:
        services = _start(hosts)
        client = services["client"].pid
        for way, origin, target in ((UP, "one", "hub"), (DOWN, "hub", "one")):
            # The first ones find everything cold.
            _through(hosts.data_dir(origin), hosts.data_dir(target), way, 4, client)
            before = {role: usage(service.pid) for role, service in services.items()}
            found[f"{BACKLOG}.{way}"] = _through(hosts.data_dir(origin), hosts.data_dir(target), way, batches, client)
            for role, service in services.items():
                cpu_s = (usage(service.pid) - before[role]).cpu_s
                found[f"federation.cpu.{way}.{role}"] = cpu_s * 1e3 / (batches * _BATCH / 1e3)
        for role, service in services.items():
            found[f"federation.rss.{role}"] = resident_mib(service.pid)
    return found


def _live(room: Room) -> Mapping[str, float]:
    batches = room.scale(200)
    found: dict[str, float] = {}
    with site(room.place, strict=True) as hosts:
        _start(hosts)
        for way, origin, target in ((UP, "one", "hub"), (DOWN, "hub", "one")):
            _through(hosts.data_dir(origin), hosts.data_dir(target), way, 4, None)
            found[f"{LIVE}.{way}"] = _through(hosts.data_dir(origin), hosts.data_dir(target), way, batches, None)
    return found


def _through(origin: Path, target: Path, channel: str, batches: int, frozen: int | None) -> float:
    """Messages a second from the first publish, or from where the frozen process goes on, to the last handler."""

    def work(rank: int, start: Start) -> float:
        if rank == 0:
            receiver = keyop_at(target).receiver(channel)
            start()
            receiver.take(batches * _BATCH, lambda message: None)
            ended = time.monotonic()
            receiver.close()
            return ended
        sender = keyop_at(origin).sender([channel])
        if frozen is not None:
            os.kill(frozen, signal.SIGSTOP)
        try:
            if frozen is None:
                start()
            began = time.monotonic()
            for first in range(0, batches * _BATCH, _BATCH):
                sender.send_many(channel, first, _BATCH)
            if frozen is not None:
                start()
                began = time.monotonic()
        finally:
            if frozen is not None:
                os.kill(frozen, signal.SIGCONT)
        sender.close()
        return began

    ended, began = run_crew(2, work)
    return batches * _BATCH / (ended - began)
