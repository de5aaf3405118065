"""Periodic mode: the journal is synced some time after the first frame that is not, in a thread of its own."""

from __future__ import annotations

import threading
import time

from keyop.storage.journal import Journal


class Flusher:
    """A timer that is started by a commit and costs nothing while it runs."""

    def __init__(self, journal: Journal, interval_ms: int) -> None:
        self._journal = journal
        self._interval_s = interval_ms / 1000
        self._due = threading.Event()
        self._runs = False
        threading.Thread(target=self._run, name="flush", daemon=True).start()

    def start(self) -> None:
        """A frame was written that has to be on the device one interval from now."""
        if not self._runs:
            self._runs = True
            self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            time.sleep(self._interval_s)
            self._due.clear()
            self._runs = False  # before the sync: what is written from here on may not be in it
            self._journal.sync()
