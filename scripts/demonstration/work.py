"""A worker on host2: ``python -m demonstration.work DATA_DIR ID``. It ends when its standard input does.

`STEADY` publishes an alert whenever the processors are busier than ever before. `SHAKY` fails: at every tenth reading
once, and at every tenth, five later, for good.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from demonstration import ALERT_TYPE, ALERTS, READINGS, SHAKY, STEADY
from demonstration.crew import LogToParent, leave_signals_to_parent, say, until_told
from demonstration.hosts import CLIENT
from keyop import Message, Messenger

Work = Callable[[Message[Any]], None]


def main(data_dir: str, id: str) -> None:
    """Handle every reading, and say so."""
    leave_signals_to_parent()
    logging.getLogger("keyop").addHandler(LogToParent())

    with Messenger(data_dir, name=CLIENT) as messenger:
        work = {STEADY: _show_and_alert(messenger), SHAKY: _fail_now_and_then}[id]

        def handle(message: Message[Any]) -> None:
            work(message)
            delay = datetime.now(UTC) - message.ts
            say("handled", id=message.id, attempt=message.attempt, ms=delay.total_seconds() * 1000)

        messenger.subscribe(
            READINGS,
            id,
            handle,
            start="earliest",
            max_retries=2,
            retry_backoff=(0.1, 0.4),
            # An alert and the step to the next reading are one transaction: no reading raises two.
            exactly_once=id == STEADY,
        )
        say("ready")
        until_told()


def _show_and_alert(messenger: Messenger) -> Work:
    highest = -1.0

    def work(message: Message[Any]) -> None:
        nonlocal highest
        busy = message.payload["cpu_percent"]
        if busy is not None and busy > highest:
            highest = busy
            text = f"processors busier than before: {busy:g} % at reading #{message.payload['number']}"
            say("alerted", id=messenger.publish(ALERTS, {"text": text}, payload_type=ALERT_TYPE))

    return work


def _fail_now_and_then(message: Message[Any]) -> None:
    number = message.payload["number"]
    if number % 10 == 5:
        raise ConnectionError("the siren does not answer")
    if number % 10 == 0 and message.attempt == 1:
        raise TimeoutError("the siren was slow")


if __name__ == "__main__":
    main(*sys.argv[1:])
