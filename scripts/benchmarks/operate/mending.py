"""How soon a worker that is killed handles again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.contender import Contender
from benchmarks.figure import Measurement, Room, Title
from benchmarks.operate.box import box
from benchmarks.ours import PAYLOAD_TYPE

KEY = "operate.mending"
TITLES = {
    f"{KEY}.worker": Title("a worker under keyop up is killed with -9: until its successor handles, middle of 5", "ms"),
    f"{KEY}.worker.worst": Title("the same, the worst of 5", "ms"),
}

_KILLS = 5
# A worker that has worked for less is taken for one that keeps dying, and waited for longer.
_WELL_S = 10.5


def measurements(contenders: list[Contender]) -> Iterator[Measurement]:
    """keyop alone."""
    if any(contender.key == "keyop" for contender in contenders):
        yield Measurement(KEY, "keyop", _mend)


def _mend(room: Room) -> Mapping[str, float]:
    from keyop import Messenger

    took_ms = []
    with box(room.place) as running, Messenger(str(running.directory.path)) as messenger:
        for number in range(room.scale(_KILLS, least=3)):
            messenger.publish("orders", f"before-{number}", payload_type=PAYLOAD_TYPE)
            running.wait_for(f"handled before-{number} ")
            time.sleep(_WELL_S)
            os.kill(running.pids()["clerk"], signal.SIGKILL)
            killed_s = time.monotonic()
            messenger.publish("orders", f"after-{number}", payload_type=PAYLOAD_TYPE)
            handled_s = float(running.wait_for(f"handled after-{number} ").split()[-1])
            took_ms.append((handled_s - killed_s) * 1e3)
    return {f"{KEY}.worker": median(took_ms), f"{KEY}.worker.worst": max(took_ms)}
