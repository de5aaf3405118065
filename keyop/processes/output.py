"""What comes out of the supervisor: its own sentences, and the lines of its children. All go to standard error."""

from __future__ import annotations

import json
import os
import sys
import time


class Output:
    """One line an event.

    As text a child's line is ``hub | LINE``. As JSON one that is a JSON object stays as it is, any other becomes one.
    """

    def __init__(self, log_format: str = "text", name: str = "supervisor", fd: int | None = None) -> None:
        self._is_json = log_format == "json"
        self._name = name
        self._fd = sys.stderr.fileno() if fd is None else fd

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

    def _say(self, level: str, text: str) -> None:
        if self._is_json:
            self._write(_record(level, f"keyop.{self._name}", os.getpid(), text))
        else:
            self._write(f"{_now()} {level} {self._name}[{os.getpid()}] {text}")

    def _write(self, line: str) -> None:
        data = f"{line}\n".encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # nobody reads it any more; the children are looked after all the same


def _record(level: str, logger: str, pid: int, text: str) -> str:
    record = {"ts": _now(), "level": level, "logger": logger, "pid": pid, "message": text}
    return json.dumps(record, separators=(",", ":"))


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
