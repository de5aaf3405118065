"""The writer as an attached process sees it: its board, its semaphore, and the way to get one where there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from keyop.attachment.spawn import WriterSpawner
from keyop.errors import WriterUnavailable
from keyop.ipc import layout, lease, semaphore
from keyop.ipc.board import Board
from keyop.ipc.layout import STATE, WRITER_ASLEEP
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.semaphore import Semaphore
from keyop.ipc.word import Fence
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory

START_TIMEOUT_S = 10.0
_BOARD_PATIENCE_S = 2.0
# Exit codes of writers that came as far as the lock: somebody else has it, it crashed, it could not drain. The next one
# may fare better, as it may after one that was killed.
_NEXT_PLEASE = (69, 70, 75)
_LOOK_S = 0.005

GONE_BOARD = memoryview(bytes(layout.BOARD_HEADER_BYTES)).cast("I").tolist()
GONE_BOARD[layout.STATE] = layout.GONE


class WriterLink:
    """One process's link to whichever writer there is. Any number of threads may use it."""

    def __init__(self, directory: DataDirectory, identity: DirectoryIdentity, spawner: WriterSpawner) -> None:
        self._directory = directory
        self._identity = identity
        self._spawner = spawner
        self._fence = Fence()
        self._board: Board | None = None
        # The board's; GONE stands in them as long as there is none.
        self.words: memoryview | list[int] = GONE_BOARD
        self._semaphore: Semaphore | None = None
        # The writer's sleep for which this process has posted already.
        self._posted = 0

    # ---- reaching it

    def reach(self, deadline: float, remake_port: Callable[[], None]) -> None:
        """Map the board of a living writer, starting one where there is none. Raises `WriterUnavailable`.

        ``remake_port`` is called before a writer that is new to this process is mapped or started.
        """
        started = False
        locked_since = 0.0
        while not self.map_board(remake_port):
            now = time.monotonic()
            if self._spawner.writer_lives():
                locked_since = locked_since or now
                if now - locked_since > _BOARD_PATIENCE_S and not self._other_board():
                    raise WriterUnavailable(
                        f"{self._directory.path}: a writer holds the lock, but its board is not in this /dev/shm: it "
                        "runs in another container or IPC namespace; share /dev/shm with it (docker run --ipc)"
                    )
            else:
                locked_since = 0.0
                code = self._spawner.reap()
                if code and code > 0 and code not in _NEXT_PLEASE:
                    raise self._spawner.unavailable(f"the writer could not be started (exit code {code})")
                remake_port()
                started = self._spawner.spawn() or started
            if now > deadline:
                raise self._spawner.unavailable(
                    "no writer answers" + ("" if started else "; a supervisor should start it, is it running?")
                )
            # Not on the semaphore: its time-out follows the wall clock, and no tick knocks yet.
            time.sleep(_LOOK_S)
        self.knock()

    def map_board(self, remake_port: Callable[[], None]) -> bool:
        """Map the board if there is one whose writer takes transactions (or will, once it has recovered)."""
        board = Board.open(self._identity)
        if board is None:
            return False
        if board.state not in (layout.OPEN, layout.STALLED):
            board.close()
            return False
        writer = semaphore.open_existing(self._identity.writer_semaphore())
        if writer is None:
            board.close()
            return False
        if not self._spawner.writer_lives():
            board.close()  # what a killed writer left
            return False
        # A writer that is new to this process cannot know its port if that is gone.
        remake_port()
        self._board = board
        self._semaphore = writer
        self._posted = 0
        self.words = board.words
        return True

    def _other_board(self) -> bool:
        board = Board.open(self._identity)
        if board is not None:
            board.close()
        return board is not None

    @property
    def was_reached(self) -> bool:
        """Whether there ever was a writer that may know this process's port."""
        return self._semaphore is not None

    # ---- waking it

    def knock(self) -> None:
        """Post the writer, whether it sleeps or not."""
        if self._semaphore is not None:
            self._semaphore.post()

    def wake(self) -> None:
        """Post the writer if it sleeps, once for each sleep: until it wakes, a burst would post again and again."""
        self._fence()
        asleep = self.words[WRITER_ASLEEP]
        if asleep and asleep != self._posted:
            # In this order: Ctrl-C in between leaves nothing noted that was not done.
            self._semaphore.post()  # type: ignore[union-attr]
            self._posted = asleep

    # ---- what its board says

    @property
    def sync_interval_ms(self) -> int:
        """The writer's; 0 is strict: it syncs before it says committed."""
        return int(self.words[layout.SYNC_INTERVAL_MS])

    def options(self) -> WriterOptions | None:
        """With which options the writer was started; None if it cannot be told."""
        try:
            lines = (self._directory.run / lease.WRITER_LOCK).read_text().splitlines()
            return WriterOptions.from_arguments(dict(line.split("=", 1) for line in lines if "=" in line))
        except (OSError, ValueError, KeyError):
            return None

    @property
    def strict(self) -> bool:
        """Whether the writer syncs before it says committed."""
        return self.sync_interval_ms == 0

    @property
    def board(self) -> Board:
        """The board of the writer that was last reached."""
        assert self._board is not None
        return self._board

    def state(self) -> str:
        """What the board says of the writer, for people."""
        state = layout.STATE_NAMES.get(int(self.words[STATE]), "unknown")
        errno = int(self.words[layout.STALL_ERRNO])
        return f"{state}: {os.strerror(errno)}" if errno and state == "stalled" else state

    def is_replaced(self) -> bool:
        """Whether the board's name leads to another one: whose name is gone is not marked GONE by the next writer."""
        board = Board.open(self._identity)
        if board is None:
            return False
        another = board.incarnation != self.board.incarnation
        board.close()
        return another
