"""What it costs to publish: one process and sixteen, strict and periodic, alone and in batches."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterator, Mapping

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import Keyop, send_concurrently

TITLES = {
    "publish.strict.1": Title("publish, strict, 1 process", "µs a message"),
    "publish.strict.batch": Title("publish, strict, 1 process, batches of 100", "msg/s", 0),
    "publish.strict.16x1": Title("publish, strict, 16 processes on one channel", "msg/s", 0),
    "publish.strict.16x16": Title("publish, strict, 16 processes on 16 channels", "msg/s", 0),
    "publish.strict.16x64": Title("publish, strict, 16 processes on 64 channels", "msg/s", 0),
    "publish.periodic.burst": Title("publish, periodic, 1 process, bursts of 500", "µs a message", 2),
    "publish.periodic.1": Title("publish, periodic, 1 process, without pause", "µs a message", 2),
    "publish.aio": Title("publish, strict, asyncio, 256 in flight", "msg/s", 0),
}

_CROWD = 16
_BURST = 500
# Long enough for a program that works a burst off in the background.
_BETWEEN_BURSTS_S = 0.1


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """One measurement for each kind of publishing and each contender that can do it."""
    for contender in contenders:
        if True in contender.modes:
            yield _measure("publish.strict.1", contender, _one_by_one)
    for contender in contenders:
        if True in contender.modes:
            yield _measure("publish.strict.batch", contender, _batches)
    for channels in (1, 16, 64):
        for contender in contenders:
            if contender.shared and True in contender.modes:
                yield _measure(f"publish.strict.16x{channels}", contender, _crowd, channels)
    for contender in contenders:
        if False in contender.modes:
            yield _measure("publish.periodic.burst", contender, _bursts)
    for contender in contenders:
        if False in contender.modes:
            yield _measure("publish.periodic.1", contender, _without_pause)
    for contender in contenders:
        if isinstance(contender, Keyop):
            yield Measurement("publish.aio", contender.key, functools.partial(_asyncio, keyop=contender))


def _measure(name: str, contender: Contender, how: object, *more: int) -> Measurement:
    def run(room: Room) -> Mapping[str, float]:
        assert callable(how)
        return {name: how(room, contender, *more)}

    return Measurement(name, contender.key, run)


def _one_by_one(room: Room, contender: Contender) -> float:
    count = room.scale(2000)
    with contender.running(room.place, strict=True):
        (span,) = run_crew(1, functools.partial(_send, contender, count, _name_all(1)))
    return _span_s([span]) / count * 1e6


def _crowd(room: Room, contender: Contender, channels: int) -> float:
    # Slower programs get fewer: what counts is the rate, and a second of it is enough.
    each = room.scale(1000 if contender.key in ("keyop", "redis", "floor") else 400)
    names = _name_all(channels)
    with contender.running(room.place, strict=True):
        spans = run_crew(_CROWD, functools.partial(_send, contender, each, names))
    return _CROWD * each / _span_s(spans)


def _name_all(channels: int) -> list[str]:
    return [f"bench-{number}" for number in range(channels)]


def _send(contender: Contender, count: int, names: list[str], rank: int, start: Start) -> tuple[float, float]:
    """One publisher's work, in turn on its share of the channels, or on the only one: when it began and ended."""
    mine = names[rank::_CROWD] or names[rank % len(names) :][:1]
    sender = contender.sender(mine)
    for name in mine:
        sender.send(name, 0)
    start()
    began = time.monotonic()
    for number in range(count):
        sender.send(mine[number % len(mine)], number)
    ended = time.monotonic()
    sender.close()
    return began, ended


def _span_s(spans: list[tuple[float, float]]) -> float:
    return max(ended for _, ended in spans) - min(began for began, _ in spans)


def _batches(room: Room, contender: Contender) -> float:
    batches = room.scale(200)

    def work(rank: int, start: Start) -> float:
        sender = contender.sender(["bench"])
        sender.send("bench", 0)
        start()
        began = time.monotonic()
        for batch in range(batches):
            sender.send_many("bench", batch * 100, 100)
        took = time.monotonic() - began
        sender.close()
        return took

    with contender.running(room.place, strict=True):
        (took,) = run_crew(1, work)
    return batches * 100 / took


def _bursts(room: Room, contender: Contender) -> float:
    bursts = room.scale(20)

    def work(rank: int, start: Start) -> float:
        sender = contender.sender(["bench"])
        sender.send("bench", 0)
        start()
        took = []
        for _ in range(bursts):
            time.sleep(_BETWEEN_BURSTS_S)
            began = time.monotonic()
            for number in range(_BURST):
                sender.send("bench", number)
            took.append(time.monotonic() - began)
        sender.close()
        # The middle burst: one that is interrupted for milliseconds says nothing about publishing.
        return statistics.median(took)

    with contender.running(room.place, strict=False):
        (took,) = run_crew(1, work)
    return took / _BURST * 1e6


def _without_pause(room: Room, contender: Contender) -> float:
    count = room.scale(20_000)
    with contender.running(room.place, strict=False):
        (span,) = run_crew(1, functools.partial(_send, contender, count, _name_all(1)))
    return _span_s([span]) / count * 1e6


def _asyncio(room: Room, keyop: Keyop) -> Mapping[str, float]:
    count = room.scale(20_000)
    with keyop.running(room.place, strict=True):
        (took,) = run_crew(1, functools.partial(send_concurrently, keyop, count, 256))
    return {"publish.aio": count / took}
