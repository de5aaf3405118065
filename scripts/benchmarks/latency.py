"""How long a message takes from `publish` in one process to the handler in another."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Title

TITLES = {
    f"latency.{mode}.{load}.{part}": Title(f"publish to handler, {mode}, {words}, {part}", "µs", 0)
    for mode in ("strict", "periodic")
    for load, words in (("idle", "gaps of 2 ms"), ("load", "beside 2,000 msg/s of 4 processes"))
    for part in ("p50", "p99")
}

_GAP_S = 0.002
_WARM_UP = 100
_LOADERS = 4
_LOADER_GAP_S = 1 / 500


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """Strict and periodic, idle and under load, for each contender that another process can wait for."""
    for load in ("idle", "load"):
        for strict in (True, False):
            for contender in contenders:
                if contender.receives and strict in contender.modes:
                    name = f"latency.{'strict' if strict else 'periodic'}.{load}"
                    loaders = _LOADERS if load == "load" else 0
                    run = functools.partial(_latency, name=name, contender=contender, strict=strict, loaders=loaders)
                    yield Measurement(name, contender.key, run)


def _latency(room: Room, name: str, contender: Contender, strict: bool, loaders: int) -> Mapping[str, float]:
    count = room.scale(1000)

    def work(rank: int, start: Start) -> list[int]:
        if rank == 0:
            return receive(contender, "bench", count, start)
        if rank == 1:
            send(contender, "bench", count, start)
        else:
            _load(contender, f"load-{rank}", count, start)
        return []

    with contender.running(room.place, strict):
        took_ns = sorted(run_crew(2 + loaders, work)[0])
    return {f"{name}.p50": took_ns[len(took_ns) // 2] / 1e3, f"{name}.p99": took_ns[len(took_ns) * 99 // 100] / 1e3}


def receive(contender: Contender, channel: str, count: int, start: Start) -> list[int]:
    """The subscriber's work: nanoseconds from `send`'s look at the clock to the handler's, for each message."""
    receiver = contender.receiver(channel)
    took_ns: list[int] = []

    def handle(message: Any) -> None:
        now = time.monotonic_ns()
        took_ns.append(now - receiver.number(message))

    start()
    receiver.take(_WARM_UP + count, handle)
    receiver.close()
    return took_ns[_WARM_UP:]


def send(contender: Contender, channel: str, count: int, start: Start) -> None:
    """The publisher's work: messages that carry the time at which they are published, 2 ms between two of them."""
    sender = contender.sender([channel])
    start()
    # The receiver may subscribe only now; what is sent while everybody warms up does not count.
    time.sleep(0.3)
    for _ in range(_WARM_UP + count):
        sender.send(channel, time.monotonic_ns())
        time.sleep(_GAP_S)
    sender.close()


def _load(contender: Contender, channel: str, count: int, start: Start) -> None:
    """Other traffic, on a channel of its own, for as long as the one that is measured takes, and a little longer."""
    sender = contender.sender([channel])
    start()
    ends = time.monotonic() + 0.5 + (_WARM_UP + count) * _GAP_S * 1.5
    number = 0
    due = time.monotonic()
    while (now := time.monotonic()) < ends:
        if now < due:
            time.sleep(due - now)
        sender.send(channel, number)
        number += 1
        # A contender that cannot keep up is not asked for more and more.
        due = max(due, now - 0.1) + _LOADER_GAP_S
    sender.close()
