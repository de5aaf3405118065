"""The ring: what one side puts the other takes, whatever the position, and never what is not there yet."""

from __future__ import annotations

import mmap
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyop.ipc.layout import COMMITTED, HEAD, MASK, POISONED, PORT_SIZE_BYTES, RING_BYTES, RING_SIZE_BYTES
from keyop.ipc.memory import Memory
from keyop.ipc.ring import MAX_PAYLOAD_BYTES, RingProducer, copy
from keyop.writer import attached
from keyop.writer.attached import AttachedPort
from keyop.writer.round import Round

SHORTEST = 1


class Collector(Round):
    """The writer's end, with all transactions collected as they are instead of planned."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.log: list[str] = []
        logger = SimpleNamespace(error=lambda event, **_: self.log.append(event))
        super().__init__(SimpleNamespace(by_name={}), None, None, None, None, None, logger)  # type: ignore[arg-type]
        self.max_bytes = 1 << 40

    def _take_any(self, port: AttachedPort, data: bytes, begin: int, end: int, after: int) -> bool:
        self.payloads.append(data[begin:end])
        return True


class Ring:
    """Both ends of one ring that begins at a position."""

    def __init__(self, position: int = 0) -> None:
        self.memory = Memory("ring", mmap.mmap(-1, PORT_SIZE_BYTES))
        self.words = self.memory.words
        self.words[HEAD] = self.words[COMMITTED] = position
        self.producer = RingProducer(self.memory)
        port: Any = SimpleNamespace(memory=self.memory, words=self.words, pid=0, ring_id=1)
        self.port = AttachedPort("ring", port, Path("none"))
        self.round = Collector()

    def take(self) -> list[bytes]:
        """What the writer takes and commits now."""
        self.round.payloads = []
        self.round.take(self.port)
        self.words[COMMITTED] = self.port.taken
        return self.round.payloads

    def bytes(self) -> bytes:
        return self.memory.buffer[RING_BYTES:]

    def store(self, data: bytes) -> None:
        self.memory.buffer[RING_BYTES:] = data


def payload(number: int, length: int = 100) -> bytes:
    return (b"%08d" % number * (length // 8 + 1))[:length]


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, MASK),
    steps=st.lists(
        st.one_of(st.none(), st.integers(SHORTEST, 3000), st.integers(SHORTEST, MAX_PAYLOAD_BYTES)), max_size=60
    ),
)
def test_what_is_put_is_taken_in_order_wherever_it_wraps(start: int, steps: list[int | None]) -> None:
    ring = Ring(start)
    expected: deque[bytes] = deque()
    used = 0
    for number, length in enumerate(steps):
        if length is None:
            assert ring.take() == list(expected)
            expected.clear()
            used = 0
            continue
        record = payload(number, length)
        position = ring.producer.put(record)
        if used + length + 8 > RING_SIZE_BYTES:
            assert position is None
        else:
            used += length + 8
            expected.append(record)
            assert position == ring.producer.head == ring.words[HEAD]
    assert ring.take() == list(expected)
    assert ring.words[COMMITTED] == ring.words[HEAD]


@pytest.mark.parametrize("start", [0, 1, RING_SIZE_BYTES - 4, MASK - 100, MASK])
def test_a_ring_can_be_filled_to_its_last_byte(start: int) -> None:
    ring = Ring(start)
    half = payload(1, RING_SIZE_BYTES // 2 - 8)
    assert ring.producer.put(half) is not None
    assert ring.producer.put(half) is not None
    assert ring.producer.put(b"x" * SHORTEST) is None
    assert ring.words[HEAD] - ring.words[COMMITTED] & MASK == RING_SIZE_BYTES
    assert ring.take() == [half, half]
    assert ring.producer.put(half) is not None


def test_a_record_without_room_changes_nothing() -> None:
    ring = Ring()
    ring.producer.put(payload(1, RING_SIZE_BYTES - 8 - 100))
    before, head = ring.bytes(), ring.words[HEAD]
    assert ring.producer.put(payload(2, 93)) is None
    assert (ring.bytes(), ring.words[HEAD], ring.producer.head) == (before, head, head)
    assert ring.producer.put(payload(2, 92)) is not None


def test_the_last_laps_record_does_not_pass_for_this_laps() -> None:
    """Processors reorder stores: the head is seen before the bytes, and there stands a whole record of the last lap."""
    ring = Ring()
    length = RING_SIZE_BYTES // 8 - 8
    for number in range(8):
        ring.producer.put(payload(number, length))
    assert len(ring.take()) == 8
    last_lap = ring.bytes()
    ring.producer.put(payload(8, length))
    this_lap = ring.bytes()
    ring.store(last_lap)
    assert ring.take() == []
    assert ring.words[COMMITTED] == RING_SIZE_BYTES
    ring.store(this_lap)
    assert ring.take() == [payload(8, length)]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, MASK), at=st.integers(0, 107), flip=st.integers(1, 255))
def test_a_record_with_any_byte_wrong_is_not_taken_and_the_ones_before_it_are(start: int, at: int, flip: int) -> None:
    ring = Ring(start)
    ring.producer.put(payload(1))
    ring.producer.put(payload(2))
    place = RING_BYTES + (start + 108 + at) % RING_SIZE_BYTES
    good = ring.memory.buffer[place]
    ring.memory.buffer[place] = good ^ flip
    assert ring.take() == [payload(1)]
    assert ring.take() == []
    assert not ring.words[POISONED]
    ring.memory.buffer[place] = good
    assert ring.take() == [payload(2)]


def test_a_record_that_stays_wrong_closes_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring()
    ring.producer.put(payload(1))
    ring.memory.buffer[RING_BYTES + 20] ^= 1
    now = [100.0]
    monkeypatch.setattr(attached.time, "monotonic", lambda: now[0])
    assert ring.take() == []
    assert not ring.words[POISONED]
    now[0] += attached.POISON_AFTER_S - 0.1
    ring.take()
    assert not ring.words[POISONED]
    now[0] += 0.2
    ring.take()
    assert ring.words[POISONED]
    assert ring.round.log == ["ring_closed"]
    ring.take()
    assert ring.round.log == ["ring_closed"]
    assert ring.port.drained


def test_a_record_that_becomes_right_in_time_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring()
    ring.producer.put(payload(1))
    ring.memory.buffer[RING_BYTES + 20] ^= 1
    now = [100.0]
    monkeypatch.setattr(attached.time, "monotonic", lambda: now[0])
    ring.take()
    now[0] += 0.9
    ring.memory.buffer[RING_BYTES + 20] ^= 1
    assert ring.take() == [payload(1)]
    ring.producer.put(payload(2))
    ring.memory.buffer[RING_BYTES + 108 + 20] ^= 1
    ring.take()
    now[0] += 0.9
    ring.take()
    assert not ring.words[POISONED]


@pytest.mark.parametrize("beyond", [1, 100, MASK // 2, MASK - RING_SIZE_BYTES])
def test_a_head_beyond_the_ring_is_not_followed(beyond: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(5)
    ring.words[HEAD] = 5 + RING_SIZE_BYTES + beyond & MASK
    assert ring.take() == []
    now = attached.time.monotonic()
    monkeypatch.setattr(attached.time, "monotonic", lambda: now + 2)
    assert ring.take() == []
    assert ring.words[POISONED]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, MASK), head=st.integers(1, RING_SIZE_BYTES))
def test_whatever_a_length_says_nothing_is_read_beyond_the_head(length: int, head: int) -> None:
    ring = Ring()
    ring.memory.buffer[RING_BYTES : RING_BYTES + 4] = length.to_bytes(4, "little")
    ring.words[HEAD] = head
    assert ring.take() == []


def test_a_copy_goes_around_the_end() -> None:
    ring = Ring()
    ring.store(bytes(range(256)) * (RING_SIZE_BYTES // 256))
    assert copy(ring.memory, RING_SIZE_BYTES - 3, 6) == bytes([253, 254, 255, 0, 1, 2])
    assert copy(ring.memory, 2 * RING_SIZE_BYTES - 3, 3) == bytes([253, 254, 255])
    assert copy(ring.memory, RING_SIZE_BYTES, RING_SIZE_BYTES) == ring.bytes()
