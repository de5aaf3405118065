"""The board, kept mapped over many looks."""

from __future__ import annotations

import time
from collections.abc import Iterable

from keyop.errors import SharedMemoryError
from keyop.inspection import presence
from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.storage.directory import DataDirectory

# The writer stores a value in three words: a look may come in between.
_TRIES = 10
# Where somebody has emptied shared memory, nobody marks the old board as gone.
_REOPEN_S = 20.0


class BoardWatch:
    """Ends and counts of channels, as long as a writer's board is to be seen. Places are looked for once."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._board: Board | None = None
        self._places: dict[str, int] = {}
        self._good_until_s = 0.0

    def look(self) -> None:
        """See whether the board is still that of a living writer; map the next one if it is not."""
        if not presence.writer_lives(self._directory):
            self.close()  # another program may write the files now
            return
        now_s = time.monotonic()
        if self._board is not None and self._board.state != layout.GONE and now_s < self._good_until_s:
            return
        self._good_until_s = now_s + _REOPEN_S
        board = self._open()
        if board is not None and board.incarnation == self.life:
            board.close()
        else:
            self.close()
            self._board = board

    def _open(self) -> Board | None:
        identity = presence.identity_of(self._directory)
        try:
            return Board.open(identity) if identity is not None else None
        except SharedMemoryError:
            return None  # another user's

    def close(self) -> None:
        """Unmap it."""
        if self._board is not None:
            self._board.close()
            self._board = None
        self._places.clear()

    @property
    def seen(self) -> Board | None:
        """The board, if one is to be seen."""
        return self._board

    @property
    def life(self) -> int:
        """A number that each board draws for itself: counters of another one begin anew. 0 without a board."""
        return self._board.incarnation if self._board is not None else 0

    def end(self, channel: str) -> int | None:
        """The committed end in bytes; None if no board says it: nothing was written since the writer began."""
        found = self.ends_and_records((channel,))
        return found[channel][0] if found else None

    def records(self, channel: str) -> int | None:
        """Messages committed since the writer began; None without a board."""
        if self._board is None:
            return None
        found = self.ends_and_records((channel,))
        return found[channel][1] if found else 0

    def ends_and_records(self, channels: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The committed end in bytes, and how many messages were committed since the writer began.

        Of those channels that the board has: the writer puts one there when it first writes to it.
        """
        board = self._board
        if board is None:
            return {}
        found = {}
        places = self._places
        for channel in channels:
            place = places.get(channel) or board.find(channel.encode(errors="surrogateescape"))
            if place is None:
                continue
            places[channel] = place
            for _ in range(_TRIES):
                end, records = board.end_and_records(place)
                if end is not None and records is not None:
                    found[channel] = end, records
                    break
        return found
