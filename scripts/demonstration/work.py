"""A worker: ``python -m demonstration.work DATA_DIR ID``. It ends when its standard input does.

The one called `SHAKY` fails: at every tenth reading once, and at every tenth, five later, for good.
"""

from __future__ import annotations

import logging
import signal
import sys
from datetime import UTC, datetime
from typing import Any

from demonstration import CHANNEL, SHAKY
from demonstration.crew import LogToParent, say, until_told
from keyop import Message, Messenger


def main(data_dir: str, id: str) -> None:
    """Handle every reading, and say so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides who stops when
    logging.getLogger("keyop").addHandler(LogToParent())

    def handle(message: Message[Any]) -> None:
        if id == SHAKY:
            _fail_now_and_then(message.payload["number"], message.attempt)
        delay = datetime.now(UTC) - message.ts
        say("handled", id=message.id, attempt=message.attempt, ms=delay.total_seconds() * 1000)

    with Messenger(data_dir) as messenger:
        messenger.subscribe(CHANNEL, id, handle, start="earliest", max_retries=2, retry_backoff=(0.1, 0.4))
        say("ready")
        until_told()


def _fail_now_and_then(number: int, attempt: int) -> None:
    if number % 10 == 5:
        raise ConnectionError("the siren does not answer")
    if number % 10 == 0 and attempt == 1:
        raise TimeoutError("the siren was slow")


if __name__ == "__main__":
    main(*sys.argv[1:])
