"""Counters over the lives of processes: they never fall, and add up to what was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keyop.ipc.histogram import Distribution, Histogram
from keyop.metrics.totals import Count, Key, Totals

A, B = Key("handled", ("a",)), Key("handled", ("b",))

# Looks at up to three processes: what each has counted since the look before, None for one that is gone (and may come
# again, counting from zero).
LOOKS = st.lists(st.lists(st.none() | st.integers(0, 9), min_size=3, max_size=3), max_size=12)


@given(LOOKS)
def test_totals_never_fall_and_lose_nothing_that_was_seen(looks: list[list[int | None]]) -> None:
    totals = Totals()
    counted = [0, 0, 0]
    lives = [0, 0, 0]
    expected = 0
    for look in looks:
        now: dict[tuple[str, Key], Count] = {}
        for process, more in enumerate(look):
            if more is None:
                counted[process] = 0
                lives[process] += 1
            else:
                counted[process] += more
                expected += more
                now[f"{process} {lives[process]}", A] = counted[process]
        assert totals.look(now, lambda _: True).get(A, 0) == expected


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 10**10), max_size=5)), max_size=8))
def test_so_it_is_with_times(lives: list[tuple[bool, list[int]]]) -> None:
    totals, expected, histogram = Totals(), Histogram(), Histogram()
    for is_new, times_ns in lives:
        if is_new:
            histogram = Histogram()  # in the same slot
        for time_ns in times_ns:
            histogram.note(time_ns)
        found = totals.look({("slot", A): histogram.read()}, lambda _: True)[A]
        assert isinstance(found, Distribution)
        for time_ns in times_ns:
            expected.note(time_ns)
        # One that begins anew and has counted more than before by the next look is taken for the one before.
        assert histogram.read().total <= found.total <= expected.read().total


def test_a_slot_that_is_used_for_something_else_keeps_both() -> None:
    totals = Totals()
    totals.look({("slot", A): 5}, lambda _: True)
    assert totals.look({("slot", B): 2}, lambda _: True) == {A: 5, B: 2}
    assert totals.look({("slot", A): 1}, lambda _: True) == {A: 6, B: 2}


def test_what_begins_anew_under_a_look_is_added() -> None:
    totals = Totals()
    assert totals.look({("slot", A): 5}, lambda _: True) == {A: 5}
    assert totals.look({("slot", A): 3}, lambda _: True) == {A: 8}


def test_what_is_gone_and_not_wanted_is_forgotten() -> None:
    totals = Totals()
    totals.look({("slot", A): 5, ("slot", B): 5}, lambda _: True)
    assert totals.look({}, lambda key: key == B) == {B: 5}
    assert totals.look({("other", A): 1}, lambda _: True) == {A: 1, B: 5}
