"""What makes the writer wait: shown on the board as STALLED, and logged once when it begins and when it ends."""

from __future__ import annotations

import os
import threading

from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.writer.log import Log


class Trouble:
    """The sources of trouble and their errno; and with them the board's state while the writer is open.

    Any thread may use it: a state that one thread stores must not undo what another has just said.
    """

    def __init__(self, board: Board, log: Log) -> None:
        self._board = board
        self._log = log
        self._sources: dict[str, int] = {}
        # STARTING, CLOSING or GONE; 0 while it is open.
        self._closed = layout.STARTING
        self._lock = threading.Lock()

    def open(self) -> None:
        """Say OPEN, or STALLED if there is trouble."""
        self._say(0)

    def close(self, state: int) -> None:
        """Say CLOSING or GONE."""
        self._say(state)

    def _say(self, closed: int) -> None:
        with self._lock:
            self._closed = closed
            self._store()

    def _store(self) -> None:
        words = self._board.words
        words[layout.STALL_ERRNO] = next(iter(self._sources.values()), 0)
        words[layout.STATE] = self._closed or (layout.STALLED if self._sources else layout.OPEN)

    def restate(self) -> None:
        """Say it again, now and then: a damaged state would have everybody wait for a writer that is there."""
        with self._lock:
            self._store()

    def set(self, source: str, errno: int) -> None:
        """Note that a source is in trouble, or (errno 0) is well again."""
        if self._sources.get(source, 0) != errno:
            with self._lock:
                self._change(source, errno)

    def _change(self, source: str, errno: int) -> None:
        if self._sources.get(source, 0) == errno:
            return
        if errno:
            self._sources[source] = errno
            self._log.error("stalled", what=source, why=os.strerror(errno), errno=errno)
        else:
            self._sources.pop(source, None)
            self._log.info("recovered", what=source)
        self._store()
