"""Running ``keyop hub`` and ``keyop client`` in the foreground until a signal: what both commands share."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Service(Protocol):
    """A hub or a client."""

    def start(self) -> Coroutine[Any, Any, Any]:
        """Begin."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Finish what is under way, and leave."""


def serve(service: Service, ready: Callable[[Any], str]) -> None:
    """Start, say that it is ready, wait for SIGTERM or SIGINT, and close."""
    asyncio.run(_serve(service, ready))


async def _serve(service: Service, ready: Callable[[Any], str]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    started = await service.start()
    logging.getLogger("keyop").info("%s", ready(started))
    try:
        await stop.wait()
    finally:
        await service.close()


def set_up_logging(log_format: str, level: str) -> None:
    """Log the library's events to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
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
