"""What is under way on a connection, in either direction, and how much of it there may be."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from keyop.federation.limits import Limits


class _Sent(NamedTuple):
    number: int
    size_bytes: int
    sent_s: float


class InFlight:
    """Batches that were sent and are not acknowledged, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._batches: deque[_Sent] = deque()
        self._size_bytes = 0
        self._sent = 0

    def __len__(self) -> int:
        return len(self._batches)

    def has_room(self, pipelined: bool) -> bool:
        """Whether another batch may be sent: one at a time, or as many as the window holds."""
        limits = self._limits
        most = limits.window_batches if pipelined else 1
        return len(self._batches) < most and self._size_bytes < limits.window_bytes

    def add(self, size_bytes: int, now_s: float) -> int:
        """A batch is sent; its number, 1 for the first."""
        self._sent += 1
        self._batches.append(_Sent(self._sent, size_bytes, now_s))
        self._size_bytes += size_bytes
        return self._sent

    def acknowledged(self, now_s: float) -> tuple[int, float]:
        """The oldest one is acknowledged: its number, and the seconds that it took."""
        batch = self._batches.popleft()
        self._size_bytes -= batch.size_bytes
        return batch.number, now_s - batch.sent_s

    def numbers(self) -> tuple[int, ...]:
        """Which they are."""
        return tuple(batch.number for batch in self._batches)


class _Received:
    __slots__ = ("is_committed", "last_id", "size_bytes")

    def __init__(self, size_bytes: int, last_id: str) -> None:
        self.size_bytes = size_bytes
        self.last_id = last_id
        self.is_committed = False


class Uncommitted:
    """Batches that were received and are not acknowledged, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._batches: deque[_Received] = deque()
        self._first = 1
        self.size_bytes = 0
        """Of all of them."""

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def next_number(self) -> int:
        """The number of the next one, 1 for the first."""
        return self._first + len(self._batches)

    @property
    def has_room(self) -> bool:
        """Whether another one may be taken."""
        return len(self._batches) < self._limits.window_batches and self.size_bytes < self._limits.window_bytes

    def add(self, size_bytes: int, last_id: str) -> None:
        """One is received, and will be acknowledged with `last_id`."""
        self._batches.append(_Received(size_bytes, last_id))
        self.size_bytes += size_bytes

    def committed(self, number: int) -> list[str]:
        """One is committed. The ids with which to acknowledge those that have no uncommitted one before them."""
        place = number - self._first
        if not 0 <= place < len(self._batches):
            return []
        self._batches[place].is_committed = True
        last_ids = []
        while self._batches and self._batches[0].is_committed:
            batch = self._batches.popleft()
            self._first += 1
            self.size_bytes -= batch.size_bytes
            last_ids.append(batch.last_id)
        return last_ids
