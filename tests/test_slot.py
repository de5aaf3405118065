"""A slot keeps the last whole cursor wherever a store was cut off."""

from __future__ import annotations

import mmap

from hypothesis import given, settings
from hypothesis import strategies as st

from keyop.ipc import layout
from keyop.ipc.memory import Memory
from keyop.ipc.slot import Slot, SlotCursor

U64 = st.integers(0, 2**64 - 1)
COPY_BYTES = 24


def memory() -> Memory:
    return Memory("slots", mmap.mmap(-1, layout.PORT_SIZE_BYTES))


def test_a_slot_without_a_store_has_no_cursor() -> None:
    slot = Slot(memory(), 3)
    slot.occupy(b"alerts", b"notifier", 1)
    assert slot.cursor() is None
    assert (slot.in_use, slot.granted, slot.flags, slot.names()) == (True, False, 1, (b"alerts", b"notifier"))
    slot.grant()
    assert slot.granted
    slot.vacate()
    assert not slot.in_use


@given(moves=st.integers(1, 2**64 - 1), offset=U64, attempts=st.integers(0, 2**32 - 1))
def test_a_cursor_comes_back_as_it_was_stored(moves: int, offset: int, attempts: int) -> None:
    slot = Slot(memory(), 63)
    slot.cursor_writer()(moves, offset, attempts)
    assert slot.cursor() == SlotCursor(moves, offset, attempts)


@settings(max_examples=200)
@given(moves=st.integers(2, 2**63), cut=st.integers(0, COPY_BYTES), offset=st.integers(0, 2**62))
def test_a_store_cut_off_at_any_byte_leaves_the_cursor_before_it(moves: int, cut: int, offset: int) -> None:
    shared = memory()
    slot = Slot(shared, 5)
    store = slot.cursor_writer()
    store(moves - 1, offset, 1)
    store(moves, offset + 10, 1)
    before = shared.buffer[:]
    store(moves + 1, offset + 2000, 7)
    after = shared.buffer[:]
    at = layout.SLOTS_BYTES + 5 * layout.SLOT_BYTES + layout.SLOT_CURSOR_BYTES[(moves + 1) & 1]
    torn = bytearray(before)
    torn[at : at + cut] = after[at : at + cut]
    assert after == before[:at] + after[at : at + COPY_BYTES] + before[at + COPY_BYTES :]
    shared.buffer[:] = bytes(torn)
    # A cut can leave bytes that are those of the whole store: then it is the whole store.
    whole = torn == after
    assert slot.cursor() == (SlotCursor(moves + 1, offset + 2000, 7) if whole else SlotCursor(moves, offset + 10, 1))


def test_a_slot_that_is_taken_again_knows_nothing_of_its_last_owner() -> None:
    slot = Slot(memory(), 0)
    slot.occupy(b"a" * 200, b"b" * 200, 0)
    store = slot.cursor_writer()
    store(9, 100, 2)
    store(10, 200, 0)
    slot.count("handled", 77)
    slot.vacate()
    slot.occupy(b"c", b"d", 0)
    assert slot.cursor() is None
    assert slot.names() == (b"c", b"d")
    assert set(slot.counters().values()) == {0}


def test_slots_do_not_touch_each_other() -> None:
    shared = memory()
    slots = [Slot(shared, index) for index in range(layout.SLOTS_A_PAGE)]
    for slot in slots:
        slot.occupy(b"%d" % slot.index * 100, b"%d" % slot.index * 100, 0)
        slot.cursor_writer()(slot.index + 1, slot.index * 1000, 1)
        slot.cursor_writer()(slot.index + 2, slot.index * 1000, 2)
        for number, name in enumerate(layout.SLOT_COUNTER_NAMES):
            slot.count(name, slot.index * 100 + number)
    for slot in slots:
        assert slot.names() == (b"%d" % slot.index * 100, b"%d" % slot.index * 100)
        assert slot.cursor() == SlotCursor(slot.index + 2, slot.index * 1000, 2)
        assert list(slot.counters().values()) == [slot.index * 100 + n for n in range(len(layout.SLOT_COUNTER_NAMES))]
    assert not any(shared.buffer[: layout.SLOTS_BYTES])
    assert not any(shared.buffer[layout.RING_BYTES :])


@given(value=U64)
def test_a_counter_holds_64_bits_and_a_torn_one_reads_as_nothing(value: int) -> None:
    shared = memory()
    slot = Slot(shared, 1)
    slot.count("failed", value)
    assert slot.counters()["failed"] == value
    word = (layout.SLOTS_BYTES + layout.SLOT_BYTES) // 4 + layout.SLOT_COUNTERS + 3
    shared.words[word] ^= 0x100
    assert slot.counters()["failed"] == 0


def test_damaged_names_and_flags_are_seen() -> None:
    shared = memory()
    slot = Slot(shared, 0)
    slot.occupy(b"alerts", b"notifier", 1)
    assert slot.sound
    first, names = layout.SLOTS_BYTES, layout.SLOTS_BYTES + layout.SLOT_NAMES_BYTES
    for at in (*range(first + 4, first + 20), *range(names, names + 18)):
        for bit in range(8):
            shared.buffer[at] ^= 1 << bit
            assert not slot.sound
            shared.buffer[at] ^= 1 << bit
    assert slot.sound
