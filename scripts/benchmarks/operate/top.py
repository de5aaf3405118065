"""What ``keyop top`` takes on a directory with many channels and subscribers, and whether publishers feel it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contender import Contender
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import PAYLOAD_TYPE
from benchmarks.process import resident_mib, usage

if TYPE_CHECKING:
    from keyop import Messenger

KEY = "operate.top"
_CHANNELS, _SUBSCRIBERS, _PROCESSES = 1_000, 200, 4
_WHAT = f"{_CHANNELS:,} channels and {_SUBSCRIBERS} subscribers"
TITLES = {
    f"{KEY}.cpu": Title(f"CPU of keyop top on {_WHAT}, a look a second", "% of a core", 2),
    f"{KEY}.rss": Title("RSS of it", "MiB"),
    f"{KEY}.publish.without": Title("publish, strict, gaps of 2 ms, p99, without keyop top", "µs", 0),
    f"{KEY}.publish.with": Title("the same, while it looks on, in turns with the other", "µs", 0),
}

_GAP_S = 0.002
_TURNS = 6
_PUBLISHES = 2_500
_SETTLE_S = 3.0
_SUBSCRIBE = """\
import sys
from keyop import Messenger
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Messenger(path) as m:
    for number in range(first, last):
        m.subscribe(f"channel-{number:04}", f"subscriber-{number}", lambda msg: None)
    print("ready", flush=True)
    sys.stdin.read()
"""


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    if any(contender.key == "keyop" for contender in contenders):
        yield Measurement(KEY, "keyop", _measure)


def _measure(room: Room) -> Mapping[str, float]:
    from keyop import Messenger

    place = room.place / "data"
    alone_ns: list[int] = []
    watched_ns: list[int] = []
    cpu_s = elapsed_s = rss_mib = 0.0
    with Messenger(str(place)) as messenger:
        for number in range(_CHANNELS):
            messenger.publish(f"channel-{number:04}", number, payload_type=PAYLOAD_TYPE)
        with _subscribers(place):
            for _ in range(room.scale(_TURNS, least=2)):
                alone_ns += _publish(messenger, room.scale(_PUBLISHES))
                with _top(place) as pid:
                    time.sleep(_SETTLE_S)
                    before, began_s = usage(pid), time.monotonic()
                    watched_ns += _publish(messenger, room.scale(_PUBLISHES))
                    cpu_s += (usage(pid) - before).cpu_s
                    elapsed_s += time.monotonic() - began_s
                    rss_mib = max(rss_mib, resident_mib(pid))
    return {
        f"{KEY}.cpu": cpu_s / elapsed_s * 100,
        f"{KEY}.rss": rss_mib,
        f"{KEY}.publish.without": _p99_us(alone_ns),
        f"{KEY}.publish.with": _p99_us(watched_ns),
    }


def _publish(messenger: Messenger, count: int) -> list[int]:
    """Nanoseconds of each; one channel after the other, so that a third of them has news in each look."""
    took_ns = []
    for number in range(count):
        began_ns = time.perf_counter_ns()
        messenger.publish(f"channel-{number * 7 % _CHANNELS:04}", number, payload_type=PAYLOAD_TYPE)
        took_ns.append(time.perf_counter_ns() - began_ns)
        time.sleep(_GAP_S)
    return took_ns


def _p99_us(took_ns: list[int]) -> float:
    return sorted(took_ns)[len(took_ns) * 99 // 100] / 1e3


@contextlib.contextmanager
def _subscribers(place: Path) -> Iterator[None]:
    each = _SUBSCRIBERS // _PROCESSES
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SUBSCRIBE, str(place), str(rank * each), str((rank + 1) * each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for rank in range(_PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("a process of subscribers has ended")
        yield
    finally:
        for process in processes:
            process.communicate()


@contextlib.contextmanager
def _top(place: Path) -> Iterator[int]:
    """Its process id. It draws on a terminal of 80 x 24, which is read as ssh would."""
    inner, outer = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "keyop", "top", "-d", str(place)],
        stdin=outer,
        stdout=outer,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm-256color"},
    )
    os.close(outer)
    reader = threading.Thread(target=_read_all, args=(inner,), daemon=True)
    reader.start()
    try:
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"keyop top has ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait()
        reader.join()
        os.close(inner)


def _read_all(fd: int) -> None:
    with contextlib.suppress(OSError):  # what a terminal says when the last process has left it
        while os.read(fd, 65_536):
            pass
