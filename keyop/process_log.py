"""The log of a process of ours: lines on standard error, of the form that the writer's have, or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def set_up_logging(log_format: str, level: str, others: str = "warning") -> None:
    """Log the library's events from a level on to standard error, and those of ``others`` from theirs on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(others.upper())
    logging.getLogger("keyop").setLevel(level.upper())


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """As the writer's: time, level, where from, what."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        name = record.name.removeprefix("keyop.")
        text = (
            f"{moment}.{record.msecs:03.0f}Z {record.levelname.lower()} {name}[{record.process}] {record.getMessage()}"
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object a line."""
        said: dict[str, Any] = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, separators=(",", ":"))
