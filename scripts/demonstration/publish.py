"""The publisher on host1: ``python -m demonstration.publish DATA_DIR``. It ends when its standard input does."""

from __future__ import annotations

import sys
import threading
import time

from demonstration import READING_TYPE, READINGS
from demonstration.crew import leave_signals_to_parent, say, until_told
from demonstration.hosts import HUB
from demonstration.sensors import Sensors
from keyop import Messenger

EVERY_S = 0.2


def main(data_dir: str) -> None:
    """Publish a reading every 200 ms."""
    leave_signals_to_parent()
    told = threading.Event()
    threading.Thread(target=lambda: (until_told(), told.set()), daemon=True).start()
    number = 0
    sensors = Sensors()
    with Messenger(data_dir, name=HUB) as messenger:
        say("ready")
        due = time.monotonic()
        while not told.wait(max(0.0, due - time.monotonic())):
            number += 1
            reading = {"number": number, **sensors.read()}
            began = time.perf_counter()
            id = messenger.publish(READINGS, reading, payload_type=READING_TYPE, service_name="sensors")
            say("published", id=id, reading=reading, ms=(time.perf_counter() - began) * 1000)
            due += EVERY_S


if __name__ == "__main__":
    main(sys.argv[1])
