"""A child process of the demonstration. It says events, one JSON object a line; the end of its input tells it to end.

So it also ends when the parent is killed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
_END_TIMEOUT_S = 20.0

# ---- the child's side


def say(what: str, **details: object) -> None:
    """Tell the parent."""
    line = json.dumps({"what": what, **details}) + "\n"
    try:
        os.write(1, line.encode())  # one write: lines of several threads do not mix
    except BrokenPipeError:
        pass  # the parent is gone, and until_told returns


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


class Child:
    """A process that runs a module of this package; ``on_event(name, event)`` is called in a thread of its own."""

    def __init__(self, name: str, module: str, arguments: list[str], on_event: Callable[[str, Event], None]) -> None:
        self.name = name
        self._on_event = on_event
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"demonstration.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

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
        while not self._ready.wait(0.1):
            if not self.alive:
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
