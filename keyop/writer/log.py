"""The writer's log: one line an event on stderr, as text or as JSON. `logging` would cost a megabyte."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events. ``sink`` takes one line without its newline; tests give their own."""

    def __init__(self, log_format: str = "text", level: str = "info", sink: Callable[[str], None] | None = None):
        self._json = log_format == "json"
        self._level = _LEVELS[level]
        self._sink = sink or _to_stderr

    def debug(self, event: str, **fields: object) -> None:
        """Something only a developer wants."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Something that happened as it should."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something was passed over or moved; nothing stopped."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something waits or failed until somebody acts."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if _LEVELS[level] < self._level:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        if self._json:
            import json

            record = {"ts": stamp, "level": level, "event": event, "pid": os.getpid(), **fields}
            self._sink(json.dumps(record, default=str))
        else:
            details = "".join(f" {key}={value}" for key, value in fields.items())
            self._sink(f"{stamp} {level} writer[{os.getpid()}] {event}{details}")


def _to_stderr(line: str) -> None:
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it any more; the writer goes on
