"""How quickly a subscriber works off what has piled up, and whether kill -9 costs it its place."""

from __future__ import annotations

import functools
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import PAYLOAD_TYPE, Keyop

TITLES = {
    "drain.noop": Title("drain a backlog with a no-op handler", "msg/s", 0),
    "drain.payload": Title("drain a backlog, the payload is decoded", "msg/s", 0),
    "drain.exactly_once": Title("drain through an exactly_once handler that republishes each", "msg/s", 0),
    "drain.kill.lost": Title("messages lost by kill -9 in mid-drain", "messages", 0),
    "drain.kill.repeated": Title("messages handled twice after kill -9 in mid-drain", "messages", 0),
}

_FILL = 1000


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """The plain drain for all; the rest is keyop's alone."""
    for contender in contenders:
        if contender.key != "floor":
            yield Measurement("drain.noop", contender.key, functools.partial(_drain, contender=contender))
    for contender in contenders:
        if contender.key != "floor":
            yield Measurement("drain.payload", contender.key, functools.partial(_drain, contender=contender, look=True))
    for contender in contenders:
        if isinstance(contender, Keyop):
            yield Measurement("drain.exactly_once", contender.key, functools.partial(_exactly_once, keyop=contender))
            yield Measurement("drain.kill", contender.key, functools.partial(_kill, keyop=contender))


def _drain(room: Room, contender: Contender, look: bool = False) -> Mapping[str, float]:
    count = room.scale(contender.backlog)

    def work(rank: int, start: Start) -> float:
        receiver = contender.receiver("bench")
        handle = receiver.payload if look else _nothing
        start()
        began = time.monotonic()
        receiver.take(count, handle)
        took = time.monotonic() - began
        receiver.close()
        return took

    with contender.running(room.place, strict=False):
        run_crew(1, functools.partial(_fill, contender, count))
        (took,) = run_crew(1, work)
    return {"drain.payload" if look else "drain.noop": count / took}


def _nothing(message: Any) -> None:
    pass


def _fill(contender: Contender, count: int, rank: int, start: Start) -> None:
    sender = contender.sender(["bench"])
    start()
    for first in range(0, count, _FILL):
        sender.send_many("bench", first, min(_FILL, count - first))
    sender.close()


def _exactly_once(room: Room, keyop: Keyop) -> Mapping[str, float]:
    """Until the last message that the handler published is committed: `close` waits for it."""
    count = room.scale(keyop.backlog)

    def work(rank: int, start: Start) -> float:
        from threading import Event

        from keyop import Messenger

        done = Event()
        left = count
        messenger = Messenger(str(keyop.place))

        def handler(message: Any) -> None:
            nonlocal left
            messenger.publish("republished", message.payload, payload_type=PAYLOAD_TYPE)
            left -= 1
            if not left:
                done.set()

        start()
        began = time.monotonic()
        messenger.subscribe("bench", "us", handler, start="earliest", exactly_once=True)
        if not done.wait(timeout=170):
            raise TimeoutError(f"{left} of {count} messages did not come")
        messenger.close()
        return time.monotonic() - began

    with keyop.running(room.place, strict=True):
        run_crew(1, functools.partial(_fill, keyop, count))
        (took,) = run_crew(1, work)
        lines = sum(path.read_bytes().count(b"\n") for path in (keyop.place / "channels/republished").glob("*.jsonl"))
    if lines != count:
        raise RuntimeError(f"{lines} messages were republished, not {count}")
    return {"drain.exactly_once": count / took}


def _kill(room: Room, keyop: Keyop) -> Mapping[str, float]:
    """Kill a subscriber three times in mid-drain and let the next one go on: each must begin where the last one was."""
    count = room.scale(keyop.backlog)
    fork = multiprocessing.get_context("fork")
    lost = repeated = 0
    with keyop.running(room.place, strict=False):
        run_crew(1, functools.partial(_fill, keyop, count))
        # Memory that survives its writer: what number was handled last, and the first of this process.
        seen = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        seen[0] = -1
        for killing in (True, True, True, False):
            expected = seen[0] + 1
            seen[1] = -1
            subscriber = fork.Process(target=_note_numbers, args=(keyop.place, count, seen), daemon=True)
            subscriber.start()
            _wait_for_progress(seen, expected + count // 10 if killing else count - 1)
            assert subscriber.pid is not None
            os.kill(subscriber.pid, signal.SIGKILL)
            subscriber.join()
            lost += max(0, seen[1] - expected)
            repeated += max(0, expected - seen[1])
            # Gaps within one process's numbers count as lost, steps back as repeated.
            lost += seen[2]
            repeated += seen[3]
            seen[2] = seen[3] = 0
    return {"drain.kill.lost": lost, "drain.kill.repeated": repeated}


def _note_numbers(place: Path, count: int, seen: memoryview) -> None:
    from keyop import Messenger

    messenger = Messenger(str(place))

    def handler(message: Any) -> None:
        number = message.payload["n"]
        if seen[1] < 0:
            seen[1] = number
        elif number != seen[0] + 1:
            seen[2 if number > seen[0] else 3] += abs(number - seen[0] - 1)
        seen[0] = number

    messenger.subscribe("bench", "us", handler, start="earliest")
    time.sleep(120)


def _wait_for_progress(seen: memoryview, number: int) -> None:
    deadline = time.monotonic() + 60
    while seen[0] < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the subscriber stands at {seen[0]}, {number} was expected")
        time.sleep(0.001)
