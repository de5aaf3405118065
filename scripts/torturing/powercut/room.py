"""A function run as on a machine that has just started: no process, no shared memory, no mount of before is there."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from torturing.powercut import system

T = TypeVar("T")


class Overdue(Exception):
    """What ran in a room did not end by its deadline, and was ended."""


class Room(Generic[T]):
    """A child with process numbers, mounts and a ``/dev/shm`` of its own, that runs one function."""

    def __init__(self, work: Callable[[], T], timeout_s: float) -> None:
        """Start it. Raises `OSError`."""
        self.deadline_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._said = bytearray()
        self._ended = False
        self._pipe, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = system.fork_into_room()
        if not self.pid:
            _run(work, theirs)
        os.close(theirs)

    def fileno(self) -> int:
        """Can be read when there is something to hear or the child has ended."""
        return self._pipe

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        return time.monotonic() >= self.deadline_s

    def hear(self) -> bool:
        """Take what it says; whether it has ended."""
        data = os.read(self._pipe, 1 << 20)
        self._said += data
        self._ended = not data
        return self._ended

    def result(self) -> T:
        """Wait for its end; what the function returned.

        Raises what the function raised, as a `RigError` with its traceback, and `Overdue`.
        """
        while not self._ended:
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._pipe], [], [], left_s)[0]:
                self.close()
                raise Overdue(f"not done in {self._timeout_s:.0f} s")
            self.hear()
        self.close()
        if not self._said:
            raise system.RigError("a room ended without a word")
        fine, said = pickle.loads(self._said)
        if not fine:
            raise system.RigError(said)
        result: T = said
        return result

    def close(self) -> None:
        """End it, and everything in it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _run(work: Callable[[], T], pipe: int) -> None:
    try:
        # Ctrl-C is for the one who waits outside.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            said = pickle.dumps((True, work()))
        except BaseException:
            said = pickle.dumps((False, traceback.format_exc()))
        while said:
            said = said[os.write(pipe, said) :]
    finally:
        os._exit(0)


def in_a_room(work: Callable[[], T], timeout_s: float) -> T:
    """Run a function in a room and wait for it. Raises `RigError` and `Overdue`."""
    room = Room(work, timeout_s)
    try:
        return room.result()
    finally:
        room.close()
