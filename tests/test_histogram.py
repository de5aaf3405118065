"""Times counted by size: nothing is lost, and quantiles are right to the bucket."""

from __future__ import annotations

import itertools
import mmap

from hypothesis import given
from hypothesis import strategies as st

from keyop.ipc import layout
from keyop.ipc.histogram import BOUNDS_S, Distribution, Histogram, bucket_of, read_histogram
from keyop.ipc.memory import Memory
from keyop.ipc.slot import Slot

TIMES = st.integers(-(10**9), 2**45)


def words() -> memoryview:
    return memoryview(bytearray(4 * (layout.HISTOGRAM_WORDS + 2))).cast("I")


@given(TIMES)
def test_a_time_is_within_the_bounds_of_its_bucket(time_ns: int) -> None:
    bucket = bucket_of(time_ns)
    seconds = max(0, time_ns) / 1e9
    assert bucket == layout.HISTOGRAM_COUNTS - 1 or seconds < BOUNDS_S[bucket]
    assert bucket == 0 or seconds >= BOUNDS_S[bucket - 1]


def test_the_bounds_double_from_microseconds_to_minutes() -> None:
    assert BOUNDS_S[0] == 8.192e-6
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(BOUNDS_S))
    assert 1000 < BOUNDS_S[-1] < 1200


@given(st.lists(st.tuples(TIMES, st.integers(1, 1000))))
def test_what_is_noted_is_read_by_others(noted: list[tuple[int, int]]) -> None:
    shared = words()
    histogram = Histogram(shared, 1)
    for time_ns, weight in noted:
        histogram.note(time_ns, weight)
    read = read_histogram(shared, 1)
    assert read == histogram.read()
    assert read.total == sum(weight for _, weight in noted)
    assert read.sum_ns == sum(max(0, time_ns) * weight for time_ns, weight in noted)
    assert shared[0] == shared[layout.HISTOGRAM_WORDS + 1] == 0


@given(st.lists(st.integers(1, 10**12), min_size=1), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_to_the_bucket(times_ns: list[int], part: float) -> None:
    histogram = Histogram()
    for time_ns in times_ns:
        histogram.note(time_ns)
    ordered = sorted(times_ns)
    rank = max(1, -int(-part * len(ordered) // 1))  # the smallest that this part of all does not exceed
    exact_ns = ordered[rank - 1]
    found_s = histogram.read().quantile_s(part)
    assert found_s is not None
    bucket = bucket_of(exact_ns)
    assert found_s <= BOUNDS_S[bucket] * 1.000001
    assert found_s >= (BOUNDS_S[bucket - 1] if bucket else 0.0) * 0.999999


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_quantiles_do_not_cross(times_ns: list[int]) -> None:
    histogram = Histogram()
    for time_ns in times_ns:
        histogram.note(time_ns)
    read = histogram.read()
    quantiles = [read.quantile_s(part / 20) or 0.0 for part in range(21)]
    assert quantiles == sorted(quantiles)


def test_nothing_counted_has_no_quantile() -> None:
    assert Distribution().quantile_s(0.5) is None
    assert Distribution().mean_s is None


def test_what_exceeds_all_bounds_counts_as_the_last_one() -> None:
    histogram = Histogram()
    histogram.note(10**15)
    assert histogram.read().quantile_s(0.5) == BOUNDS_S[-1]
    assert histogram.read().mean_s == 1e6


@given(st.lists(TIMES), st.lists(TIMES))
def test_the_difference_of_two_looks_is_what_came_between(before: list[int], after: list[int]) -> None:
    histogram, between = Histogram(), Histogram()
    for time_ns in before:
        histogram.note(time_ns)
    earlier = histogram.read()
    for time_ns in after:
        histogram.note(time_ns)
        between.note(time_ns)
    assert histogram.read().since(earlier) == between.read()
    assert earlier.plus(between.read()) == histogram.read()


def test_a_count_without_room_begins_all_of_it_anew() -> None:
    shared = words()
    histogram = Histogram(shared, 0)
    histogram.note(1_000_000, 5)
    histogram.note(1_000, layout.MASK)
    full = histogram.read()
    assert full.total == layout.MASK + 5
    histogram.note(1_000)
    assert read_histogram(shared, 0) == Distribution()
    histogram.note(1_000)
    assert read_histogram(shared, 0).total == 1
    assert histogram.read().since(full) == histogram.read()


def test_a_sum_without_room_does_so_too() -> None:
    histogram = Histogram()
    for _ in range(2):
        histogram.note(1 << 62, 3)
    assert histogram.read() == Distribution()


def test_the_histograms_of_a_slot_touch_nothing_else() -> None:
    shared = Memory("slots", mmap.mmap(-1, layout.PORT_SIZE_BYTES))
    slots = [Slot(shared, index) for index in range(layout.SLOTS_A_PAGE)]
    for slot in slots:
        slot.occupy_peer(b"n" * 300, b"a" * 300)  # the longest names
    for slot in slots:
        for which in range(len(layout.SLOT_TIMES)):
            slot.histogram(which).note(10**15, slot.index * 10 + which + 1)
    for slot in slots:
        assert slot.sound
        assert slot.names() == (b"n" * 255, b"a" * 253)
        assert [slot.times(which).total for which in range(2)] == [slot.index * 10 + 1, slot.index * 10 + 2]
    assert not any(shared.buffer[: layout.SLOTS_BYTES])
    assert not any(shared.buffer[layout.RING_BYTES :])


def test_a_histogram_moves_with_all_that_it_counted() -> None:
    shared = Memory("slots", mmap.mmap(-1, layout.PORT_SIZE_BYTES))
    slot = Slot(shared, 3)
    slot.occupy(b"alerts", b"mailer", 0)
    histogram = Histogram()
    histogram.note(50_000)
    slot.move_histogram(layout.HANDLER_TIMES, histogram)
    histogram.note(60_000)
    assert slot.times(layout.HANDLER_TIMES) == histogram.read()
    assert slot.times(layout.HANDLER_TIMES).total == 2
