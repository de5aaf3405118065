"""keyop as a contender: its messenger behind the same interface as the rivals."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contender import NOTE, Contender, Receiver, Sender
from benchmarks.crew import Start

PAYLOAD_TYPE = "com.example.Reading"
# The last lines of a traceback say what happened.
_TROUBLE_LINES = 3
_SYNC_INTERVAL = "KEYOP_STORAGE__SYNC_INTERVAL_MS"


def reading(number: int) -> dict[str, Any]:
    """A plain JSON payload; its line on disk is about 250 bytes long."""
    return {"n": number, "note": NOTE}


class _Sender(Sender):
    def __init__(self, place: Path) -> None:
        from keyop import Messenger

        self._messenger = Messenger(str(place))

    def send(self, channel: str, number: int) -> None:
        self._messenger.publish(channel, {"n": number, "note": NOTE}, payload_type=PAYLOAD_TYPE)

    def send_many(self, channel: str, first: int, count: int) -> None:
        payloads = [{"n": number, "note": NOTE} for number in range(first, first + count)]
        self._messenger.publish_batch(channel, payloads, payload_type=PAYLOAD_TYPE)

    def close(self) -> None:
        self._messenger.close()


class _Receiver(Receiver):
    def __init__(self, place: Path, channel: str) -> None:
        from keyop import Messenger

        self._messenger = Messenger(str(place))
        self._channel = channel

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        done = threading.Event()
        left = count

        def handler(message: Any) -> None:
            nonlocal left
            handle(message)
            left -= 1
            if not left:
                done.set()

        self._messenger.subscribe(self._channel, "us", handler, start="earliest")
        if not done.wait(timeout=170):
            raise TimeoutError(f"{left} of {count} messages did not come")

    def number(self, message: Any) -> int:
        return int(message.payload["n"])

    def payload(self, message: Any) -> Any:
        return message.payload

    def close(self) -> None:
        self._messenger.close()


class Keyop(Contender):
    """The writer is started by the first process that attaches, as it is for a user."""

    key = "keyop"
    label = "keyop"

    def absent(self) -> str | None:
        # Imported before the forks: 64 processes that each import pydantic for the setting below would be a load of
        # its own. What imports cost is measured in fresh interpreters.
        try:
            for module in ("keyop.messenger", "keyop.config"):
                importlib.import_module(module)
        except ImportError as error:
            return str(error)
        return None

    def start(self, place: Path, strict: bool) -> None:
        self.place = place / "data"
        # Strict is the default, and a first program sets nothing.
        if not strict:
            os.environ[_SYNC_INTERVAL] = "200"

    def stop(self) -> None:
        os.environ.pop(_SYNC_INTERVAL, None)
        stop_writer(self.place)
        _show_troubles(self.place / "run" / "writer.log")

    def sender(self, channels: list[str]) -> Sender:
        return _Sender(self.place)

    def receiver(self, channel: str) -> Receiver:
        return _Receiver(self.place, channel)


def keyop_at(place: Path) -> Keyop:
    """keyop on a data directory that others have started, such as a hub."""
    keyop = Keyop()
    keyop.place = place
    return keyop


def send_concurrently(keyop: Keyop, count: int, in_flight: int, rank: int, start: Start) -> float:
    """Publish ``count`` messages from ``in_flight`` coroutines of one process. Returns how long it took."""
    from keyop.aio import Messenger

    async def publish() -> float:
        async with Messenger(str(keyop.place)) as messenger:
            numbers = iter(range(count))

            async def one() -> None:
                for number in numbers:
                    await messenger.publish("bench", {"n": number, "note": NOTE}, payload_type=PAYLOAD_TYPE)

            await messenger.publish("bench", reading(0), payload_type=PAYLOAD_TYPE)
            start()
            began = time.monotonic()
            await asyncio.gather(*(one() for _ in range(in_flight)))
            return time.monotonic() - began

    return asyncio.run(publish())


def writer_pid(place: Path) -> int | None:
    """The process that writes a data directory, found by its command line."""
    wanted = str(place).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # The directory stands among the settings, which are JSON.
        if b"keyop.writer" in words and any(wanted in word for word in words):
            return int(entry.name)
    return None


def stop_writer(place: Path) -> None:
    """Ask the writer of a data directory to go, and wait until it has."""
    pid = writer_pid(place)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while writer_pid(place) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _show_troubles(log: Path) -> None:
    """A writer that crashed was replaced and the figures look fine: say so."""
    if not log.exists():
        return
    lines = log.read_text(errors="replace").splitlines()
    for line in [line for line in lines if line.split(" ")[1:2] != ["info"]][-_TROUBLE_LINES:]:
        print(f"    writer.log: {line}", file=sys.stderr)


def run_python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter of the same environment and return what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
