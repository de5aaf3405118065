"""What comes out of a parent: its own sentences, and the lines of its children. All go to standard error."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque

from keyop.processes.loop import Loop

_PIECE_BYTES = 4096  # what a pipe that is ready takes without blocking: PIPE_BUF, pipe(7)
_MOST_BYTES = 1 << 20
_LAST_WORDS_S = 1.0


class Output:
    """One line an event, and never a wait for whoever reads: what it does not take in time is dropped, and counted.

    As text a child's line is ``hub | LINE``. As JSON one that is a JSON object stays as it is, any other becomes one.
    """

    def __init__(self, log_format: str = "text", name: str = "supervisor", fd: int | None = None) -> None:
        self._is_json = log_format == "json"
        self._name = name
        self._fd = sys.stderr.fileno() if fd is None else fd
        self._loop: Loop | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0

    def use(self, loop: Loop) -> None:
        """Write what waits as soon as it is taken."""
        self._loop = loop

    def info(self, text: str) -> None:
        """Something happened as it should."""
        self._say("info", text)

    def warning(self, text: str) -> None:
        """Something ended or was refused; it is being dealt with."""
        self._say("warning", text)

    def error(self, text: str) -> None:
        """Somebody has to act."""
        self._say("error", text)

    def child_line(self, role: str, pid: int, line: str) -> None:
        """A line that a child has written, without its newline."""
        if not self._is_json:
            self._write(f"{role} | {line}")
        elif line.startswith("{") and line.endswith("}"):
            self._write(line)
        else:
            self._write(_record("info", f"keyop.{role}", pid, line))

    def close(self) -> None:
        """Give whoever reads a last moment for what waits; nothing is written by way of the loop any more."""
        loop, self._loop = self._loop, None
        if self._waiting and loop is not None:
            loop.forget(self._fd)
        deadline_s = time.monotonic() + _LAST_WORDS_S
        while self._waiting and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([], [self._fd], [], left_s)[1]:
                self._write_waiting()

    def _say(self, level: str, text: str) -> None:
        if self._is_json:
            self._write(_record(level, f"keyop.{self._name}", os.getpid(), text))
        else:
            self._write(f"{_now()} {level} {self._name}[{os.getpid()}] {text}")

    def _write(self, line: str) -> None:
        data = f"{line}\n".encode(errors="replace")
        if self._waiting_bytes + len(data) > _MOST_BYTES:
            self._dropped += 1
            return
        waited = bool(self._waiting)
        self._waiting += [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]
        self._waiting_bytes += len(data)
        if not waited:
            self._write_waiting()
            if self._waiting and self._loop is not None:
                self._loop.watch_writing(self._fd, self._go_on)

    def _go_on(self) -> None:
        self._write_waiting()
        if not self._waiting and self._loop is not None:
            self._loop.forget(self._fd)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self.warning(f"{dropped} lines were dropped: nobody read them")

    def _write_waiting(self) -> None:
        """As much as is taken at once."""
        while self._waiting and select.select([], [self._fd], [], 0)[1]:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece)
            try:
                written = os.write(self._fd, piece)
            except OSError:
                continue  # nobody reads it any more; the children are looked after all the same
            if written < len(piece):
                self._waiting.appendleft(piece[written:])
                self._waiting_bytes += len(piece) - written


def _record(level: str, logger: str, pid: int, text: str) -> str:
    record = {"ts": _now(), "level": level, "logger": logger, "pid": pid, "message": text}
    return json.dumps(record, separators=(",", ":"))


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
