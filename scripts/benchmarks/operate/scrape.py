"""How long a scrape of the metrics takes on a directory with many channels and subscribers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from benchmarks.contender import Contender
from benchmarks.figure import Measurement, Room, Title
from benchmarks.ours import PAYLOAD_TYPE
from benchmarks.process import resident_mib

KEY = "operate.scrape"
_CHANNELS, _SUBSCRIBERS = 1_000, 200
_WHAT = f"{_CHANNELS:,} channels"
TITLES = {
    f"{KEY}.channels": Title(f"a scrape of the metrics of {_WHAT}, middle of 20", "ms"),
    f"{KEY}.subscribers": Title(f"the same with {_SUBSCRIBERS} subscribers that have handled something", "ms"),
    f"{KEY}.subscribers.worst": Title("the longest of these", "ms"),
    f"{KEY}.size": Title("size of its text", "KiB", 0),
    f"{KEY}.rss": Title("RSS of the server", "MiB"),
}

_SCRAPES = 20
_PAUSE_S = 0.2


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    if any(contender.key == "keyop" for contender in contenders):
        yield Measurement(KEY, "keyop", _measure)


def _measure(room: Room) -> Mapping[str, float]:
    from keyop import Messenger

    place = room.place / "data"
    with Messenger(str(place)) as messenger:
        for number in range(_CHANNELS):
            messenger.publish(f"channel-{number:04}", number, payload_type=PAYLOAD_TYPE)
        with _server(place) as (pid, url):
            channels_ms, _ = _scrape(url, room.scale(_SCRAPES, least=5))
            for number in range(_SUBSCRIBERS):
                messenger.subscribe(f"channel-{number:04}", f"subscriber-{number}", _nothing, start="earliest")
            if not messenger.drain(60):
                raise TimeoutError("the subscribers have not handled what was there")
            subscribers_ms, size = _scrape(url, room.scale(_SCRAPES, least=5))
            rss_mib = resident_mib(pid)
    return {
        f"{KEY}.channels": median(channels_ms),
        f"{KEY}.subscribers": median(subscribers_ms),
        f"{KEY}.subscribers.worst": max(subscribers_ms),
        f"{KEY}.size": size / 1024,
        f"{KEY}.rss": rss_mib,
    }


def _nothing(_message: object) -> None:
    pass


def _scrape(url: str, count: int) -> tuple[list[float], int]:
    """Milliseconds of each, and the size of the last. The first is not counted: the server looks at all files then."""
    took_ms = []
    for _ in range(count + 1):
        began_s = time.monotonic()
        with urllib.request.urlopen(url) as answer:
            size = len(answer.read())
        took_ms.append((time.monotonic() - began_s) * 1e3)
        time.sleep(_PAUSE_S)
    return took_ms[1:], size


@contextlib.contextmanager
def _server(place: Path) -> Iterator[tuple[int, str]]:
    """``keyop metrics --listen``: its process id and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keyop", "metrics", "-d", str(place), "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.rstrip("\n").rpartition(" ")[2]
        if not url.startswith("http://"):
            raise RuntimeError(f"keyop metrics has ended: {line}")
        yield process.pid, url
    finally:
        process.terminate()
        process.communicate()
