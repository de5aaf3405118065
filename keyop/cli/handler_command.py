"""A shell command as a handler: the message on its standard input, its exit code the outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from keyop.cli import exit_codes
from keyop.configuration.settings import DATA_DIR_VARIABLE
from keyop.errors import RetryLater
from keyop.messages.message import Message

_TAIL_BYTES = 2048
_READ_BYTES = 4096


class CommandFailed(Exception):
    """The command's exit code was neither 0 nor 75. The text goes into the log and the dead letter."""


class HandlerCommand:
    """Runs ``sh -c COMMAND`` for each message, one at a time."""

    def __init__(self, command: str, data_dir: str, spell: Callable[[Message[Any]], bytes]) -> None:
        """``spell`` makes what the command reads."""
        self._command = command
        self._data_dir = os.path.abspath(data_dir)
        self._spell = spell
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, message: Message[Any]) -> None:
        """Raises `CommandFailed` or `RetryLater`."""
        # A session of its own: Ctrl-C is for us, and the message under way is finished.
        with subprocess.Popen(
            ["/bin/sh", "-c", self._command],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables(message), DATA_DIR_VARIABLE: self._data_dir},
            start_new_session=True,
        ) as process:
            self._process = process
            assert process.stdin is not None
            assert process.stderr is not None
            threading.Thread(target=_feed, args=(process.stdin, self._spell(message) + b"\n"), daemon=True).start()
            said = _pass_on(process.stderr.fileno())
            code = process.wait()
        self._process = None
        _judge(code, said)

    def terminate(self) -> None:
        """Have the command that still runs, and what it started, end: nobody waits for it any more."""
        process = self._process
        if process is not None:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass


def variables(message: Message[Any]) -> dict[str, str]:
    """What a command finds in its environment. `keyop publish` in it inherits the correlation id."""
    values = {
        "KEYOP_ID": message.id,
        "KEYOP_TS": message.ts_text,
        "KEYOP_CHANNEL": message.channel,
        "KEYOP_ORIGIN": message.origin,
        "KEYOP_TYPE": message.payload_type,
        "KEYOP_CORRELATION_ID": message.correlation_id or message.id,
        "KEYOP_SERVICE_NAME": message.service_name,
        "KEYOP_OFFSET": str(message.offset),
        "KEYOP_ATTEMPT": str(message.attempt),
    }
    return {name: value.replace("\0", "") for name, value in values.items()}


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """A command need not read its input, nor all of it."""
    try:
        with pipe:
            pipe.write(data)
    except BrokenPipeError:
        pass


def _pass_on(fd: int) -> str:
    """Hand the command's standard error on to ours, and keep its end."""
    tail = b""
    while data := os.read(fd, _READ_BYTES):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        tail = (tail + data)[-_TAIL_BYTES:]
    return tail.decode(errors="replace").strip()


def _judge(code: int, said: str) -> None:
    if code == exit_codes.OK:
        return
    if code == exit_codes.TEMPORARY:
        raise RetryLater(said)
    if code < 0:
        how = f"ended by {signal.Signals(-code).name}"
    else:
        how = f"exit code {code}"
    raise CommandFailed(f"{how}: {said}" if said else how)
