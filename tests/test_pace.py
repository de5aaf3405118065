"""How much may be under way, played against links of a certain rate and delay."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.federation.limits import Limits
from keyop.federation.pace import LEAST_BYTES, SINGLE_TURN_BYTES, TURN_BYTES, Pace


class Link:
    """Carries so many bytes a second after a delay; each batch is acknowledged when it is through."""

    def __init__(self, bytes_per_s: float, delay_s: float, *, pipelined: bool = True, limit: int = 0) -> None:
        self.bytes_per_s = bytes_per_s
        self.delay_s = delay_s
        self.pace = Pace(Limits(), pipelined=pipelined, bytes_per_s=limit)
        self.now_s = 0.0
        self._free_s = 0.0
        self._under_way: deque[tuple[int, float, float]] = deque()
        self._number = 0
        self._most = 8 if pipelined else 1
        self.sent_bytes = 0
        self.took_s: list[float] = []

    def _send(self) -> bool:
        pace = self.pace
        if not pace.has_room or len(self._under_way) >= self._most or pace.wait_s(self.now_s):
            return False
        size = pace.turn_bytes
        self._number += 1
        self._free_s = max(self._free_s, self.now_s) + size / self.bytes_per_s
        self._under_way.append((self._number, self.now_s, self._free_s + self.delay_s))
        pace.sent(self._number, size, self.now_s)
        self.sent_bytes += size
        return True

    def run(self, seconds: float) -> None:
        """A backlog without an end."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            while self._send():
                pass
            if self._under_way:
                number, sent_s, there_s = self._under_way.popleft()
                self.now_s = max(self.now_s, there_s)
                self.took_s.append(self.now_s - sent_s)
                self.pace.acknowledged(number, self.took_s[-1])
            else:
                self.now_s += max(0.001, self.pace.wait_s(self.now_s))


def test_it_starts_slowly_and_soon_fills_a_fast_link() -> None:
    link = Link(100e6, 0.001)
    assert link.pace.turn_bytes == LEAST_BYTES
    link.run(0.1)
    assert link.pace.turn_bytes == TURN_BYTES


@pytest.mark.parametrize("bytes_per_s", [20_000, 100_000, 1_000_000])
def test_on_a_slow_link_little_is_under_way(bytes_per_s: int) -> None:
    """What is fresh waits behind it: about a second where a window of 8 MiB would take minutes."""
    link = Link(bytes_per_s, 0.05)
    link.run(60)
    assert link.sent_bytes > 0.8 * 60 * bytes_per_s
    last = link.took_s[len(link.took_s) // 2 :]
    assert max(last) < 2 * LEAST_BYTES / bytes_per_s + 1.0


def test_a_long_way_is_no_slow_link() -> None:
    """A satellite: 600 ms, and 1 MB/s."""
    link = Link(1e6, 0.6)
    link.run(60)
    assert link.sent_bytes > 0.5 * 60 * 1e6


def test_a_peer_that_takes_one_batch_at_a_time_gets_longer_ones() -> None:
    link = Link(50e6, 0.02, pipelined=False)
    link.run(5)
    assert link.pace.turn_bytes == SINGLE_TURN_BYTES


def test_a_limit_is_kept_in_pieces_of_a_quarter_of_a_second() -> None:
    link = Link(10e6, 0.01, limit=40_000)
    link.run(20)
    assert link.pace.turn_bytes == 10_000
    assert 0.9 * 40_000 < link.sent_bytes / 20 < 1.1 * 40_000


def test_an_idle_link_does_not_grow_its_window() -> None:
    pace = Pace(Limits(), pipelined=True)
    for number in range(100):
        pace.sent(number, 200, 0.0)
        pace.acknowledged(number, 0.001)
    assert pace.turn_bytes == LEAST_BYTES


@given(st.lists(st.tuples(st.integers(1, 5_000_000), st.floats(0.0001, 30)), max_size=80), st.booleans())
def test_whatever_comes_it_stays_within_its_bounds(batches: list[tuple[int, float]], pipelined: bool) -> None:
    pace = Pace(Limits(), pipelined=pipelined)
    for number, (size, took_s) in enumerate(batches):
        pace.sent(number, size, float(number))
        pace.acknowledged(number, took_s)
        assert LEAST_BYTES <= pace.turn_bytes <= (TURN_BYTES if pipelined else SINGLE_TURN_BYTES)
        assert pace.has_room
