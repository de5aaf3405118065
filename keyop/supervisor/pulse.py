"""Whether the writer works, not only lives: seen from outside, on its board."""

from __future__ import annotations

import time

from keyop.errors import SharedMemoryError
from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.ipc.names import DirectoryIdentity
from keyop.storage.directory import DataDirectory

_PATIENCE_S = 5.0


class Pulse:
    """The writer wakes up twice a second, and each of its sleeps has another number on the board. While it does not
    come to sleep, its frames are counted there."""

    def __init__(self, directory: DataDirectory) -> None:
        self._run = directory.run
        self._seen: tuple[int, ...] = ()
        self._changed_s = time.monotonic()

    def beats(self) -> bool:
        """Whether the writer has done anything within the last seconds. One that waits for a full disk, and says so,
        works; so does one that has not opened yet."""
        now_s = time.monotonic()
        seen = self._look()
        if seen != self._seen or not seen:
            self._seen, self._changed_s = seen, now_s
        return now_s - self._changed_s < _PATIENCE_S

    def _look(self) -> tuple[int, ...]:
        """Empty if there is nothing to be seen, or nothing to be expected."""
        try:
            board = Board.open(DirectoryIdentity(self._run))
        except (OSError, SharedMemoryError):
            return ()
        if board is None:
            return ()
        try:
            if board.state != layout.OPEN:
                return ()
            return (board.incarnation, int(board.words[layout.WRITER_ASLEEP]), board.counters()["frames"])
        finally:
            board.close()
