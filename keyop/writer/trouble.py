"""What makes the writer wait: shown on the board as STALLED, and logged once when it begins and when it ends."""

from __future__ import annotations

import os

from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.writer.log import Log


class Trouble:
    """The sources of trouble and their errno."""

    def __init__(self, board: Board, log: Log) -> None:
        self._board = board
        self._log = log
        self._sources: dict[str, int] = {}

    def set(self, source: str, errno: int) -> None:
        """Note that a source is in trouble, or (errno 0) is well again."""
        if self._sources.get(source, 0) == errno:
            return
        if errno:
            self._sources[source] = errno
            self._log.error("stalled", what=source, why=os.strerror(errno), errno=errno)
        else:
            self._sources.pop(source, None)
            self._log.info("recovered", what=source)
        words = self._board.words
        words[layout.STALL_ERRNO] = next(iter(self._sources.values()), 0)
        if words[layout.STATE] in (layout.OPEN, layout.STALLED):
            words[layout.STATE] = layout.STALLED if self._sources else layout.OPEN
