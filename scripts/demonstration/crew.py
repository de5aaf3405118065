"""A child process of the demonstration. It says events, one JSON object a line; the end of its input tells it to end.

So it also ends when the parent is killed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_READY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 20.0

# ---- the child's side


def say(what: str, **details: object) -> None:
    """Tell the parent."""
    line = json.dumps({"what": what, **details}) + "\n"
    try:
        os.write(1, line.encode())  # one write: lines of several threads do not mix
    except BrokenPipeError:
        pass  # the parent is gone, and until_told returns


def leave_signals_to_parent() -> None:
    """Ctrl-C, and ``timeout``'s SIGTERM, reach the whole group; the parent decides who ends when."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def until_told() -> None:
    """Return when the parent wants this process to end, or is gone."""
    while os.read(0, 4096):
        pass


class LogToParent(logging.Handler):
    """Log lines of the library, as events."""

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        say("logged", line=record.getMessage())


# ---- the parent's side

OnEvent = Callable[[str, Event], None]


class Child:
    """A process that runs a module of this package; ``on_event(name, event)`` is called in a thread of its own."""

    def __init__(self, name: str, module: str, arguments: list[str], on_event: OnEvent) -> None:
        self.name = name
        self._on_event = on_event
        self._ready = threading.Event()
        self._process = self._start([sys.executable, "-m", f"demonstration.{module}", *arguments])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["what"] == "ready":
                self._ready.set()
            else:
                self._on_event(self.name, event)

    def wait_ready(self) -> bool:
        """Wait until it is at work; whether it is."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._ready.wait(0.1):
            if not self.alive or time.monotonic() > deadline:
                return False
        return True

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def end(self) -> int:
        """Tell it to end, wait until it has, and return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        return code


class Command(Child):
    """``keyop hub`` or ``keyop client``, kept running. What it logs are its events; certain words say it is ready."""

    def __init__(self, name: str, place: Path, arguments: list[str], ready_when: str, on_event: OnEvent) -> None:
        self._place = place
        self._ready_when = re.compile(ready_when)
        self.said = ""
        """What the words were that matched."""
        super().__init__(name, "keeper", [*arguments, "--log-format", "json"], on_event)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self._place, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = self._text(line)
            if text is None:
                continue
            self._on_event(self.name, {"what": "logged", "line": text})
            if (found := self._ready_when.search(text)) and not self.said:
                self.said = found[1]
                self._ready.set()

    def _text(self, line: str) -> str | None:
        try:
            said = json.loads(line)
        except ValueError:
            return line.rstrip("\n")  # no log, but an error message
        # The library below tells every connection once more.
        return None if said["logger"].endswith(".websocket") else str(said["message"])
