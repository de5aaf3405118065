"""What every process of a crew has: orders that come as signals, and an ear for what the library complains of."""

from __future__ import annotations

import logging
import os
import signal

from torturing.ledger import Notebook

PROVOKED = "this message always fails here"
"""What the failing handlers say."""

CLOSE_TIMEOUT_S = 60.0
"""How long a process may take to end."""

_COMPLAINTS = ("damaged", "refused", "the writer ended (exit code")


class Orders:
    """SIGTERM: leave. SIGUSR1: leave when all is handled."""

    def __init__(self) -> None:
        self.to_leave = False
        self.to_drain = False
        # A pipe, because a signal handler must not take a lock that its thread may hold already.
        self._reading, self._writing = os.pipe()
        signal.signal(signal.SIGTERM, self._leave)
        signal.signal(signal.SIGUSR1, self._drain)

    def _leave(self, *_: object) -> None:
        self.to_leave = True
        os.write(self._writing, b"!")

    def _drain(self, *_: object) -> None:
        self.to_drain = True
        os.write(self._writing, b"!")

    def wait(self) -> None:
        """Wait for an order."""
        os.read(self._reading, 1)


class _Complaints(logging.Handler):
    """What the library logs goes to stderr, but for what this workload provokes; the worst goes into the ledger."""

    def __init__(self, notes: Notebook) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        text = record.getMessage()
        if PROVOKED in text or "the process ended during attempt" in text:
            return
        os.write(2, f"{self._notes.who}: {text}\n".encode())
        if any(word in text for word in _COMPLAINTS) and "exit code 69" not in text:
            self._notes.note("complained", text=text)


def complaining_logger(notes: Notebook) -> logging.Logger:
    """A logger for a process's messenger."""
    logger = logging.getLogger("torture")
    logger.propagate = False
    logger.addHandler(_Complaints(notes))
    return logger
