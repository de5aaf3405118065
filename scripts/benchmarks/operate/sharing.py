"""Processes that share the work of one subscriber id, with a handler that computes: two cores do twice as much."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import PAYLOAD_TYPE, Keyop

KEY = "operate.sharing"
TITLES = {
    f"{KEY}.1": Title("a keyed handler that burns 1 ms of CPU, a backlog, one process", "msg/s", 0),
    f"{KEY}.2": Title("the same, two processes", "msg/s", 0),
    f"{KEY}.bare": Title("two processes that only burn, beside one: what these cores have to give", "×", 2),
}

_COUNT = 4000
_KEYS = 500
_BURN_NS = 1_000_000


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    for contender in contenders:
        if isinstance(contender, Keyop):
            yield Measurement(KEY, contender.key, functools.partial(_share, keyop=contender))


def _share(room: Room, keyop: Keyop) -> Mapping[str, float]:
    count = room.scale(_COUNT)
    with keyop.running(room.place, strict=False):
        run_crew(1, functools.partial(_fill, keyop.place, count))
        # The same messages for another id each time.
        rates = {
            f"{KEY}.{parts}": count / max(run_crew(parts, functools.partial(_handle, keyop.place, count, parts)))
            for parts in (1, 2)
        }
    one_s, two_s = (max(run_crew(size, functools.partial(_only_burn, count // size))) for size in (1, 2))
    return {**rates, f"{KEY}.bare": one_s / two_s}


def _key(number: int) -> str:
    return f"customer-{number % _KEYS}"


def _fill(place: Path, count: int, _rank: int, start: Start) -> None:
    from keyop import Messenger

    with Messenger(str(place)) as m:
        start()
        m.publish_batch("bench", [{"key": _key(number)} for number in range(count)], payload_type=PAYLOAD_TYPE)


def _burn() -> None:
    until_ns = time.thread_time_ns() + _BURN_NS
    while time.thread_time_ns() < until_ns:
        pass


def _only_burn(count: int, _rank: int, start: Start) -> float:
    start()
    began_s = time.monotonic()
    for _ in range(count):
        _burn()
    return time.monotonic() - began_s


def _handle(place: Path, count: int, parts: int, rank: int, start: Start) -> float:
    """Until this part has handled all of its own; how long that took."""
    from threading import Event

    from keyop import Message, Messenger

    left = sum(crc32(_key(number).encode()) % parts == rank for number in range(count))
    done = Event()

    def handler(_message: Message) -> None:
        nonlocal left
        _burn()
        left -= 1
        if not left:
            done.set()

    with Messenger(str(place)) as m:
        start()
        began_s = time.monotonic()
        m.subscribe(
            "bench",
            f"of-{parts}",
            handler,
            start="earliest",
            part=(rank + 1, parts),
            key=lambda message: message.payload["key"],
        )
        if not done.wait(timeout=120):
            raise TimeoutError(f"{left} messages of part {rank + 1} of {parts} did not come")
        return time.monotonic() - began_s
