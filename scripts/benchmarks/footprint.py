"""What keyop takes of a machine when it does nothing, and how soon it is there."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.contender import Contender
from benchmarks.crew import Start, run_crew
from benchmarks.figure import Measurement, Room, Skipped, Title
from benchmarks.ours import Keyop, run_python, writer_pid
from benchmarks.process import proportional_mib, resident_mib, usage

TITLES = {
    "footprint.writer": Title("RSS of the writer, 16 processes attached", "MiB"),
    "footprint.writer.pss": Title("PSS of the writer, 16 processes attached", "MiB"),
    "footprint.attached": Title("RSS of an attached process that has published", "MiB"),
    "footprint.bare": Title("RSS of a bare Python", "MiB"),
    "footprint.idle.cpu": Title("CPU of an idle writer over 10 s, one process attached", "% of a core", 3),
    "footprint.idle.wake_ups": Title("wake-ups of an idle writer", "a second", 2),
    "footprint.import": Title("import keyop, beyond bare Python", "ms"),
    "footprint.import.messenger": Title("from keyop import Messenger, beyond bare Python", "ms"),
    "footprint.first": Title("first message on disk, from process start, empty directory", "ms"),
}

_ATTACHED = 16
_IDLE_S = 10.0
_STARTS = 10

_ATTACH = """
import sys
from pathlib import Path
from keyop import Messenger
with Messenger(sys.argv[1]) as messenger:
    messenger.publish("bench", {"n": 1}, payload_type="com.example.Reading")
    status = Path("/proc/self/status").read_text()
print(status.split("VmRSS:")[1].split()[0])
"""
_BARE = """
from pathlib import Path
print(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
"""
_FIRST = """
import sys, time
from keyop import Messenger
messenger = Messenger(sys.argv[1])
messenger.publish("bench", {"n": 1}, payload_type="com.example.Reading")
print(time.monotonic(), flush=True)
messenger.close()
"""


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    for keyop in contenders:
        if isinstance(keyop, Keyop):
            yield Measurement("footprint.writer", keyop.key, functools.partial(_memory, keyop=keyop))
            yield Measurement("footprint.idle", keyop.key, functools.partial(_idle, keyop=keyop))
            yield Measurement("footprint.import", keyop.key, _import)
            yield Measurement("footprint.first", keyop.key, functools.partial(_first, keyop=keyop))


def _writer(keyop: Keyop) -> int:
    pid = writer_pid(keyop.place)
    if pid is None:
        raise Skipped("no process keyop.writer was found for the directory")
    return pid


def _memory(room: Room, keyop: Keyop) -> Mapping[str, float]:
    found: dict[str, float] = {}

    def look() -> None:
        pid = _writer(keyop)
        found["footprint.writer"] = resident_mib(pid)
        found["footprint.writer.pss"] = proportional_mib(pid)

    def work(rank: int, start: Start) -> None:
        sender = keyop.sender(["bench"])
        for number in range(200):
            sender.send("bench", number)
        start()
        sender.close()

    with keyop.running(room.place, strict=True):
        run_crew(_ATTACHED, work, when_ready=look)
        # A fresh interpreter: a fork of ours would have all of the benchmark in it.
        found["footprint.attached"] = int(run_python(_ATTACH, str(keyop.place))) / 1024
    found["footprint.bare"] = int(run_python(_BARE)) / 1024
    return found


def _idle(room: Room, keyop: Keyop) -> Mapping[str, float]:
    found: dict[str, float] = {}

    def look() -> None:
        pid = _writer(keyop)
        # What follows upon the last message (offsets, a sync that was due) is not idleness.
        time.sleep(2)
        before = usage(pid)
        time.sleep(_IDLE_S)
        idle = usage(pid) - before
        found["footprint.idle.cpu"] = idle.cpu_s / _IDLE_S * 100
        found["footprint.idle.wake_ups"] = idle.wake_ups / _IDLE_S

    def work(rank: int, start: Start) -> None:
        sender = keyop.sender(["bench"])
        sender.send("bench", 0)
        start()
        sender.close()

    with keyop.running(room.place, strict=True):
        run_crew(1, work, when_ready=look)
    return found


def _import(room: Room) -> Mapping[str, float]:
    starts = room.scale(_STARTS, least=5)
    codes = ("pass", "import keyop", "from keyop import Messenger")
    # The first round pays for compiling and for reading from the disk; only the others count.
    rounds = [[_start_ms(code) for code in codes] for _ in range(1 + starts)][1:]
    bare, package, messenger = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {"footprint.import": package - bare, "footprint.import.messenger": messenger - bare}


def _start_ms(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.monotonic() - began) * 1e3


def _first(room: Room, keyop: Keyop) -> Mapping[str, float]:
    with keyop.running(room.place, strict=True):
        began = time.monotonic()
        ended = float(run_python(_FIRST, str(keyop.place)))
        lines = list((keyop.place / "channels" / "bench").glob("*.jsonl"))
        if not lines or not _content(lines[0]):
            raise RuntimeError("publish returned, and no message is on the disk")
    return {"footprint.first": (ended - began) * 1e3}


def _content(path: Path) -> bool:
    return os.path.getsize(path) > 0
