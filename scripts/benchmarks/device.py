"""What reaches the device for each message: bytes, writes, and syncs (flush requests)."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.contender import Contender, rival_line
from benchmarks.crew import Start, run_crew
from benchmarks.disk import Disk, disk_of
from benchmarks.figure import Measurement, Room, Skipped, Title
from benchmarks.floor import Floor
from benchmarks.ours import Keyop

_SITUATIONS = {
    "busy1": "1 strict publisher, 1 channel",
    "busy10": "10 strict publishers, a channel each",
    "crowd": "16 strict publishers, 1 channel",
    "quiet": "a message every 2 s, two subscribers",
}
TITLES = {
    f"device.{key}.{part}": Title(f"to the device, {words}: {part}", f"{unit} a message", decimals)
    for key, words in _SITUATIONS.items()
    for part, unit, decimals in (("bytes", "bytes", 0), ("writes", "writes", 2), ("syncs", "syncs", 3))
}

_QUIET_GAP_S = 2.0


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """Busy on one and ten channels, a crowd, and a quiet home beside appended and synced files."""
    for key, processes, channels in (("busy1", 1, 1), ("busy10", 10, 10), ("crowd", 16, 1)):
        for contender in contenders:
            if True in contender.modes and (contender.shared or processes == 1):
                busy = functools.partial(_busy, key=key, contender=contender, processes=processes, channels=channels)
                yield Measurement(f"device.{key}", contender.key, busy)
    for contender in contenders:
        if isinstance(contender, Floor):
            yield Measurement("device.quiet", contender.key, _quiet_files)
        if isinstance(contender, Keyop):
            yield Measurement("device.quiet", contender.key, functools.partial(_quiet_keyop, keyop=contender))


class _Meter:
    """Reads the device before and after a number of messages."""

    def __init__(self, room: Room, key: str, messages: int) -> None:
        disk = disk_of(room.place)
        if isinstance(disk, str):
            raise Skipped(disk)
        self._disk: Disk = disk
        self._key = key
        self._messages = messages

    def start(self) -> None:
        """Everything is set up, and from here on it counts."""
        self._before = self._disk.traffic()

    def read(self) -> Mapping[str, float]:
        """What went to the device for a message."""
        # What the kernel still holds back is the messages' too, but the flushes of writing it now are the observer's.
        flushes = self._disk.traffic(settle=False).flushes - self._before.flushes
        went = self._disk.traffic() - self._before
        return {
            f"device.{self._key}.bytes": went.bytes / self._messages,
            f"device.{self._key}.writes": went.writes / self._messages,
            f"device.{self._key}.syncs": flushes / self._messages,
        }


def _busy(room: Room, key: str, contender: Contender, processes: int, channels: int) -> Mapping[str, float]:
    each = room.scale(4000) if processes == 1 else room.scale(500)
    meter = _Meter(room, key, each * processes)

    def work(rank: int, start: Start) -> None:
        name = f"bench-{rank % channels}"
        sender = contender.sender([name])
        sender.send(name, 0)
        start()
        for number in range(each):
            sender.send(name, number)
        sender.close()

    with contender.running(room.place, strict=True):
        run_crew(processes, work, when_ready=meter.start)
        return meter.read()


def _quiet_keyop(room: Room, keyop: Keyop) -> Mapping[str, float]:
    """A publisher and two subscribers, each a process of its own."""
    count = room.scale(15)
    meter = _Meter(room, "quiet", count)

    def work(rank: int, start: Start) -> None:
        if rank > 0:
            _subscribe(keyop.place, f"subscriber-{rank}", count, start)
            return
        sender = keyop.sender(["bench"])
        start()
        for number in range(count):
            time.sleep(_QUIET_GAP_S)
            sender.send("bench", number)
        time.sleep(_QUIET_GAP_S)
        sender.close()

    with keyop.running(room.place, strict=True):
        run_crew(3, work, when_ready=meter.start)
        return meter.read()


def _subscribe(place: Path, subscriber: str, count: int, start: Start) -> None:
    from keyop import Messenger

    with Messenger(str(place)) as messenger:
        messenger.subscribe("bench", subscriber, lambda message: None, start="earliest")
        start()
        time.sleep((count + 1) * _QUIET_GAP_S)


def _quiet_files(room: Room) -> Mapping[str, float]:
    """What a careful program does without keyop: append and sync the message, and overwrite and sync the offset file
    of each subscriber."""
    count = room.scale(15)
    meter = _Meter(room, "quiet", count)
    segment = os.open(room.place / "segment.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    offsets = [os.open(room.place / f"{who}.offset", os.O_WRONLY | os.O_CREAT, 0o600) for who in ("a", "b")]
    try:
        meter.start()
        for number in range(count):
            time.sleep(_QUIET_GAP_S)
            os.write(segment, rival_line(number))
            os.fdatasync(segment)
            for offset in offsets:
                os.pwrite(offset, b"%020d\n" % (number * 250), 0)
                os.fsync(offset)
        time.sleep(_QUIET_GAP_S)
        return meter.read()
    finally:
        for descriptor in (segment, *offsets):
            os.close(descriptor)
