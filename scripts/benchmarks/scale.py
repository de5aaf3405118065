"""Whether a publish costs more where there are many channels or many subscribers."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterator, Mapping

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import Keyop

_CHANNELS = (1, 100, 5000)
_SUBSCRIBERS = (1, 64)
_MODES = {True: "strict", False: "periodic"}
TITLES = {
    f"scale.{mode}.channels.{channels}": Title(f"publish, {mode}, in turn on {channels:,} channels", "µs a message", 1)
    for mode in _MODES.values()
    for channels in _CHANNELS
} | {
    f"scale.{mode}.subscribers.{number}": Title(
        f"publish, {mode}, gaps of 20 ms, {number} subscriber processes", "µs a message", 1
    )
    for mode in _MODES.values()
    for number in _SUBSCRIBERS
}

_BURST = 500
_GAP_S = 0.02


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    for contender in contenders:
        if not isinstance(contender, Keyop):
            continue
        for strict, mode in _MODES.items():
            for channels in _CHANNELS:
                name = f"scale.{mode}.channels.{channels}"
                run = functools.partial(_channels, name=name, keyop=contender, strict=strict, channels=channels)
                yield Measurement(name, contender.key, run)
        for strict, mode in _MODES.items():
            for subscribers in _SUBSCRIBERS:
                name = f"scale.{mode}.subscribers.{subscribers}"
                run = functools.partial(_subscribers, name=name, keyop=contender, strict=strict, size=subscribers)
                yield Measurement(name, contender.key, run)


def _channels(room: Room, name: str, keyop: Keyop, strict: bool, channels: int) -> Mapping[str, float]:
    bursts = room.scale(10)
    names = [f"bench-{number}" for number in range(channels)]

    def work(rank: int, start: Start) -> float:
        sender = keyop.sender(names)
        for channel in names:
            sender.send(channel, 0)
        start()
        took = []
        for first in range(0, bursts * _BURST, _BURST):
            if not strict:
                # The burst is what a periodic publisher pays; without the pause it would wait for the writer.
                time.sleep(0.2)
            began = time.monotonic()
            for number in range(first, first + _BURST):
                # A step that meets all channels, not the same few hundred in each burst.
                sender.send(names[number * 7919 % channels], number)
            took.append(time.monotonic() - began)
        sender.close()
        return statistics.median(took)

    with keyop.running(room.place, strict):
        (took,) = run_crew(1, work)
    return {name: took / _BURST * 1e6}


def _subscribers(room: Room, name: str, keyop: Keyop, strict: bool, size: int) -> Mapping[str, float]:
    """The publisher's part alone: how long `publish` takes while so many others are woken. Median."""
    count = room.scale(200)
    seconds = count * _GAP_S * 1.5 + 0.5

    def work(rank: int, start: Start) -> float:
        if rank > 0:
            from keyop import Messenger

            with Messenger(str(keyop.place)) as messenger:
                messenger.subscribe("bench", f"subscriber-{rank}", lambda message: None, start="earliest")
                start()
                time.sleep(seconds)
            return 0.0
        sender = keyop.sender(["bench"])
        sender.send("bench", 0)
        start()
        took = []
        for number in range(count):
            time.sleep(_GAP_S)
            began = time.monotonic()
            sender.send("bench", number)
            took.append(time.monotonic() - began)
        sender.close()
        return sorted(took)[count // 2]

    with keyop.running(room.place, strict):
        return {name: run_crew(1 + size, work)[0] * 1e6}
