"""The publisher: ``python -m demonstration.publish DATA_DIR``. It ends when its standard input does."""

from __future__ import annotations

import signal
import sys
import threading
import time

from demonstration import CHANNEL, READING_TYPE
from demonstration.crew import say, until_told
from demonstration.sensors import read_sensors
from keyop import Messenger

EVERY_S = 0.2


def main(data_dir: str) -> None:
    """Publish a reading every 200 ms."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides who stops when
    told = threading.Event()
    threading.Thread(target=lambda: (until_told(), told.set()), daemon=True).start()
    number = 0
    with Messenger(data_dir, name="demo") as messenger:
        say("ready")
        due = time.monotonic()
        while not told.wait(max(0.0, due - time.monotonic())):
            number += 1
            reading = {"number": number, **read_sensors()}
            began = time.perf_counter()
            id = messenger.publish(CHANNEL, reading, payload_type=READING_TYPE, service_name="sensors")
            say("published", id=id, reading=reading, ms=(time.perf_counter() - began) * 1000)
            due += EVERY_S


if __name__ == "__main__":
    main(sys.argv[1])
