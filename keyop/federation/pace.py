"""How much may be under way to a peer at once: as much as the link takes, and not more.

What is under way is a queue on the link: a fresh message waits behind it. So a backlog of a day must not fill the link
with the eight megabytes that a window holds, which on a mobile one take minutes. The time from a batch to its
acknowledgement says how long the queue is: what is under way grows while that time stays near the shortest one seen,
and is halved when it does not.
"""

from __future__ import annotations

from keyop.federation.limits import Limits

LEAST_BYTES = 16 * 1024
TURN_BYTES = 128 * 1024
"""The longest turn of one channel with a peer that has several batches under way."""
SINGLE_TURN_BYTES = 1 << 20
"""With a peer that takes one batch at a time, which costs a round trip and a sync of its disk each."""

_GROW_S = 0.1
_SHRINK_S = 0.25


class Pace:
    """Of one connection. It starts slowly, and doubles with each round trip."""

    def __init__(self, limits: Limits, *, pipelined: bool, bytes_per_s: int = 0) -> None:
        """``bytes_per_s``: the most to send; 0: no limit."""
        self._longest_turn_bytes = min(TURN_BYTES if pipelined else SINGLE_TURN_BYTES, limits.max_batch_bytes)
        if bytes_per_s:
            # A quarter of a second, so that fresh messages come in between.
            self._longest_turn_bytes = min(self._longest_turn_bytes, max(1, bytes_per_s // 4))
        self._most_bytes = limits.window_bytes if pipelined else self._longest_turn_bytes
        self._window_bytes = min(LEAST_BYTES, self._most_bytes)
        self._bytes_per_s = bytes_per_s
        self._may_send_s = 0.0
        self._under_way: dict[int, int] = {}
        self._under_way_bytes = 0
        self._least_s = float("inf")
        # The last batch that was sent when the window was halved: until it is acknowledged that is not done again.
        self._halved_at = 0
        self._last = 0

    @property
    def turn_bytes(self) -> int:
        """How long the next batch may be."""
        return min(self._longest_turn_bytes, self._window_bytes)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be sent before one is acknowledged."""
        return self._under_way_bytes < self._window_bytes

    def wait_s(self, now_s: float) -> float:
        """For how long nothing may be sent, for ``bytes_per_s``; 0 if something may."""
        return max(0.0, self._may_send_s - now_s)

    def sent(self, number: int, size_bytes: int, now_s: float) -> None:
        """A batch is under way."""
        self._last = number
        self._under_way[number] = size_bytes
        self._under_way_bytes += size_bytes
        if self._bytes_per_s:
            self._may_send_s = max(self._may_send_s, now_s) + size_bytes / self._bytes_per_s

    def acknowledged(self, number: int, took_s: float) -> None:
        """A batch has arrived, after this time."""
        size_bytes = self._under_way.pop(number)
        filled = self._under_way_bytes + size_bytes > self._window_bytes
        self._under_way_bytes -= size_bytes
        self._least_s = least_s = min(self._least_s, took_s)
        if took_s > 2 * least_s + _SHRINK_S:
            if number > self._halved_at:
                self._halved_at = self._last
                self._window_bytes = max(min(LEAST_BYTES, self._most_bytes), self._window_bytes // 2)
        elif took_s < 1.5 * least_s + _GROW_S and filled:
            self._window_bytes = min(self._most_bytes, self._window_bytes + size_bytes)
