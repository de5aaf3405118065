"""Segments: names, ends, where an offset may stand, and reading on whatever lies there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyop.storage.segment_reader import Event, SegmentReader, first_offset_since
from keyop.storage.segments import (
    MAX_LINE_BYTES,
    align_offset,
    channel_end,
    list_segments,
    parse_segment_name,
    segment_name,
)

FIXTURE = Path(__file__).parent / "fixtures" / "go-datadir" / "channels"

Found = list[tuple[int, bytes]]


def put(directory: Path, start: int, data: bytes) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / segment_name(start)
    path.write_bytes(data)
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def drain(reader: SegmentReader, relist: bool = True) -> Found:
    """All lines with their offsets, as a caller counts them."""
    found = []
    while batch := reader.read_batch(relist):
        assert batch.lines
        offset = batch.start
        for line in batch.lines:
            found.append((offset, line))
            offset += len(line) + 1
        assert offset == batch.end == reader.offset
    return found


def events(reader: SegmentReader) -> list[tuple[Event, int, int]]:
    found = [(event.event, event.from_offset, event.to_offset) for event in reader.events]
    assert all(str(event) for event in reader.events)
    reader.events.clear()
    return found


def test_names() -> None:
    assert segment_name(1048372) == "00000000000001048372.jsonl"
    assert parse_segment_name("00000000000001048372.jsonl") == 1048372
    for name in (
        *("5.jsonl", "-1.jsonl", "x.jsonl", "0000000000000000000.jsonl", "000000000000000000000.jsonl", ""),
        *("00000000000000000000.jsonl.gz", "00000000000000000000.json", "-0000000000000000001.jsonl"),
        *("٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠.jsonl", "99999999999999999999.jsonl", "+0000000000000000001.jsonl"),
    ):
        assert parse_segment_name(name) is None, name


def test_foreign_names_are_ignored_and_reported_once(tmp_path: Path) -> None:
    """Case 16."""
    put(tmp_path, 0, b"a\n")
    foreign = ["00000000000000000000.jsonl.gz", "-1.jsonl", ".offset.tmp", "5.jsonl", "x.jsonl"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"no\n")
    (tmp_path / segment_name(2)).mkdir()
    segments, found = list_segments(tmp_path)
    assert [segment.start for segment in segments] == [0]
    assert found == sorted([*foreign, segment_name(2)])
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    assert len(reader.events) == len(found)
    assert drain(reader) == []
    assert len(reader.events) == len(found)


def test_nothing_there_yet(tmp_path: Path) -> None:
    channel = tmp_path / "orders"
    assert list_segments(channel) == ([], [])
    assert channel_end(channel) == 0
    assert align_offset(channel, 0) == (0, None)
    assert align_offset(channel, 7) == (0, "past the end")
    reader = SegmentReader(channel, 0)
    assert reader.read_batch() is None
    channel.mkdir()
    assert reader.read_batch(relist=True) is None
    path = put(channel, 0, b"")
    assert reader.read_batch() is None
    append(path, b"a\n")
    assert drain(reader, relist=False) == [(0, b"a")]
    assert reader.events == []


def test_empty_segments_are_normal(tmp_path: Path) -> None:
    """Case 17."""
    for name in ("c", "c.dead-letter", "c.dead-letter.dead-letter"):
        put(tmp_path / name, 0, b"")
        assert channel_end(tmp_path / name) == 0
        assert align_offset(tmp_path / name, 0) == (0, None)
        reader = SegmentReader(tmp_path / name, 0)
        assert reader.read_batch(relist=True) is None
        assert reader.events == []


def test_a_torn_last_line_waits(tmp_path: Path) -> None:
    """Cases 2 and 3: what has no newline is not delivered, whole or not, and nothing of it is remembered."""
    path = put(tmp_path, 0, b'a\n{"v":1}')
    assert channel_end(tmp_path) == 2
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    assert reader.read_batch(relist=True) is None
    append(path, b"x")
    assert reader.read_batch(relist=True) is None
    path.write_bytes(b"a\nbb\ncc\n")
    assert drain(reader) == [(2, b"bb"), (5, b"cc")]
    assert reader.events == []


def test_only_newlines_separate(tmp_path: Path) -> None:
    path = put(tmp_path, 0, b"a\r\n\n\x00\x0b\x0c\x85\n\xe2\x80\xa8\n")
    lines = [(0, b"a\r"), (3, b""), (4, b"\x00\x0b\x0c\x85"), (9, b"\xe2\x80\xa8")]
    assert drain(SegmentReader(tmp_path, 0)) == lines
    assert channel_end(tmp_path) == path.stat().st_size


def test_on_to_the_next_segment_without_a_look_at_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    monkeypatch.setattr(os, "scandir", None)
    path = put(tmp_path, 2, b"")
    assert reader.read_batch() is None
    append(path, b"b\n")
    put(tmp_path, 4, b"c\n")
    assert drain(reader, relist=False) == [(2, b"b"), (4, b"c")]
    assert reader.events == []


def test_an_idle_poll_costs_two_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    calls: list[str] = []

    def counted(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **keywords: object) -> object:
            calls.append(name)
            return real(*args, **keywords)

        monkeypatch.setattr(os, name, call)

    for name in ("pread", "open", "scandir", "stat", "fstat"):
        counted(name)
    assert reader.read_batch() is None
    assert calls == ["pread", "open"]


def test_the_next_segment_made_before_this_one_is_filled(tmp_path: Path) -> None:
    """The writer plans a round over a roll and makes the next segment first: no gap, no line passed over."""
    path = put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    following = put(tmp_path, 8, b"")
    assert drain(reader) == []
    append(path, b"bb\nc")
    assert drain(reader) == [(2, b"bb")]
    append(path, b"c\n")
    append(following, b"d\n")
    assert drain(reader) == [(5, b"cc"), (8, b"d")]
    assert reader.events == []


def test_what_came_in_between_the_last_read_and_the_look_at_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    real = os.scandir

    def late(directory: Path) -> object:
        if path.stat().st_size == 2:
            append(path, b"b\n")
            put(tmp_path, 10, b"c\n")
        return real(directory)

    monkeypatch.setattr(os, "scandir", late)
    assert drain(reader) == [(0 + 2, b"b"), (10, b"c")]
    assert events(reader) == [(Event.GAP, 4, 10)]


def test_a_gap(tmp_path: Path) -> None:
    """Case 10."""
    put(tmp_path, 0, b"a\nb\n")
    put(tmp_path, 10, b"c\n")
    for offset, expected in ((0, [(0, b"a"), (2, b"b"), (10, b"c")]), (4, [(10, b"c")]), (7, [(10, b"c")])):
        reader = SegmentReader(tmp_path, offset)
        assert drain(reader) == expected
        assert events(reader) == [(Event.GAP, max(4, offset), 10)]
    assert align_offset(tmp_path, 7) == (10, "in a gap between segments")
    assert align_offset(tmp_path, 4) == (4, None)


def test_nothing_is_passed_over_before_it_is_settled(tmp_path: Path) -> None:
    """A failing disk: what is missing at a segment's end, or a line without an end, is written again."""
    put(tmp_path, 0, b"a\n\0\0")
    put(tmp_path, 6, b"d\n")
    reader = SegmentReader(tmp_path, 0)
    assert reader.read_batch(relist=True, settled=False) == ([b"a"], 0, 2)
    for contents in (b"a\n\0\0", b"a\n", b"a\n" + b"\0" * 4):
        put(tmp_path, 0, contents)
        for _ in range(3):
            assert reader.read_batch(relist=True, settled=False) is None
    put(tmp_path, 0, b"a\nb\nc\n")
    assert drain(reader) == [(2, b"b"), (4, b"c"), (6, b"d")]
    assert events(reader) == []


def test_overlapping_segments(tmp_path: Path) -> None:
    """Case 10: Go up to 1.21 after a full disk. The name is the truth, and each record comes once."""
    put(tmp_path, 0, b"a\nb\nc\n")
    put(tmp_path, 4, b"d\n")
    put(tmp_path, 6, b"e\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a"), (2, b"b"), (4, b"c"), (4, b"d"), (6, b"e")]
    assert events(reader) == [(Event.OVERLAP, 6, 4)]


def test_a_torn_line_at_the_end_of_a_sealed_segment(tmp_path: Path) -> None:
    put(tmp_path, 0, b"a\nto")
    put(tmp_path, 4, b"b\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a"), (4, b"b")]
    assert events(reader) == [(Event.TORN, 2, 4)]
    put(tmp_path, 2, b"x\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a"), (2, b"x"), (4, b"b")]
    assert events(reader) == [(Event.TORN, 2, 4), (Event.OVERLAP, 4, 2)]


def test_below_the_first_segment(tmp_path: Path) -> None:
    """Case 6."""
    put(tmp_path, 10, b"a\n")
    assert align_offset(tmp_path, 4) == (10, "below the first segment")
    assert align_offset(tmp_path, 0) == (10, "below the first segment")
    reader = SegmentReader(tmp_path, 4)
    assert drain(reader) == [(10, b"a")]
    assert events(reader) == [(Event.EVICTED, 4, 10)]


def test_evicted_under_a_slow_reader(tmp_path: Path) -> None:
    paths = [put(tmp_path, start, b"%d\n" % start) for start in (10, 13, 16, 19)]
    reader = SegmentReader(tmp_path, 10)
    assert reader.read_batch() is not None
    for path in paths[:3]:
        path.unlink()
    assert drain(reader) == [(19, b"19")]
    assert events(reader) == [(Event.EVICTED, 13, 19)]


def test_a_segment_removed_while_it_is_open_is_read_to_its_end(tmp_path: Path) -> None:
    path = put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    append(path, b"b\n")
    put(tmp_path, 4, b"c\n")
    path.unlink()
    assert drain(reader) == [(2, b"b"), (4, b"c")]
    assert reader.events == []


def test_a_channel_deleted_and_made_anew(tmp_path: Path) -> None:
    path = put(tmp_path, 0, b"a\nb\n")
    reader = SegmentReader(tmp_path, 2)
    assert drain(reader) == [(2, b"b")]
    path.unlink()
    assert drain(reader) == []
    assert reader.offset == 4
    put(tmp_path, 0, b"c\nd\ne\n")
    assert drain(reader) == [(0, b"c"), (2, b"d"), (4, b"e")]
    assert events(reader) == [(Event.REMADE, 4, 0)]
    path.unlink()
    put(tmp_path, 0, b"f\n")
    assert drain(reader) == [(0, b"f")]
    assert events(reader) == [(Event.REMADE, 6, 0)]


def test_a_directory_that_is_away_for_a_moment(tmp_path: Path) -> None:
    channel = tmp_path / "orders"
    path = put(channel, 0, b"a\n")
    reader = SegmentReader(channel, 0)
    assert drain(reader) == [(0, b"a")]
    channel.rename(tmp_path / "away")
    assert drain(reader) == []
    (tmp_path / "away").rename(channel)
    append(path, b"b\n")
    assert drain(reader) == [(2, b"b")]
    assert reader.events == []


def test_reading_after_close_goes_on(tmp_path: Path) -> None:
    path = put(tmp_path, 0, b"a\n")
    reader = SegmentReader(tmp_path, 0)
    assert drain(reader) == [(0, b"a")]
    reader.close()
    reader.close()
    append(path, b"b\n")
    assert drain(reader) == [(2, b"b")]
    reader.close()


# ---- long lines


@pytest.mark.parametrize("ended", [True, False])
def test_the_longest_line_and_one_byte_more(tmp_path: Path, ended: bool) -> None:
    """Cases 13 and 14, at the real limit."""
    path = tmp_path / segment_name(0)
    longest = b"x" * (MAX_LINE_BYTES - 1)
    path.write_bytes(b"a\n" + longest + b"\n" + longest + b"y")
    reader = SegmentReader(tmp_path, 0)
    assert [(offset, len(line)) for offset, line in drain(reader)] == [(0, 1), (2, MAX_LINE_BYTES - 1)]
    over = 2 + MAX_LINE_BYTES
    assert reader.offset == over
    assert drain(reader) == []
    if ended:
        append(path, b"\nb\n")
        assert drain(reader) == [(over + MAX_LINE_BYTES + 1, b"b")]
        assert events(reader) == [(Event.OVERSIZED, over, over + MAX_LINE_BYTES + 1)]
    else:
        put(tmp_path, over + MAX_LINE_BYTES, b"b\n")
        assert drain(reader) == [(over + MAX_LINE_BYTES, b"b")]
        assert events(reader) == [(Event.TORN, over, over + MAX_LINE_BYTES)]


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 25))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_oversized_lines_are_skipped_alone(tmp_path: Path, lengths: list[int], limit_bytes: int) -> None:
    lines = [b"%c" % (65 + place % 26) * length for place, length in enumerate(lengths)]
    put(tmp_path, 0, b"".join(line + b"\n" for line in lines))
    reader = SegmentReader(tmp_path, 0, max_line_bytes=limit_bytes)
    assert [line for _, line in drain(reader)] == [line for line in lines if len(line) < limit_bytes]
    assert len(events(reader)) == sum(len(line) >= limit_bytes for line in lines)
    assert reader.offset == channel_end(tmp_path)


# ---- any layout, any interleaving


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(-12, 12)), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_every_intact_record_once_in_any_layout(tmp_path: Path, layout: list[tuple[list[int], int]]) -> None:
    """Case 10, generalised: gaps and overlaps of every kind."""
    for path in tmp_path.iterdir():
        path.unlink()
    start = 0
    expected: Found = []
    for lengths, shift in layout:
        offset = start
        for length in lengths:
            line = b"%d" % len(expected) + b"-" * length
            expected.append((offset, line))
            offset += len(line) + 1
        put(tmp_path, start, b"".join(line + b"\n" for _, line in expected[len(expected) - len(lengths) :]))
        start = max(start + 1, offset + shift)
    assert drain(SegmentReader(tmp_path, 0)) == expected


@given(st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_reader_beside_a_writer_misses_nothing(tmp_path: Path, seed: int) -> None:
    """The writer appends in pieces, makes segments ahead of filling them, rolls; the reader looks whenever."""
    for path in tmp_path.iterdir():
        path.unlink()
    dice = random.Random(seed)
    reader = SegmentReader(tmp_path, 0)
    found: Found = []
    expected: Found = []
    start = end = 0

    def look() -> None:
        for _ in range(dice.randrange(3)):
            found.extend(drain(reader, relist=dice.random() < 0.5))

    for number in range(dice.randrange(40)):
        line = b"%d" % number + b"-" * dice.randrange(20)
        roll = dice.random() < 0.2 and end > start
        plan = [(start, end, line)]
        if roll:
            second = b"roll%d" % number
            plan.append((end + len(line) + 1, end + len(line) + 1, second))
            put(tmp_path, plan[1][0], b"")
            look()
        for segment_start, offset, text in plan:
            path = tmp_path / segment_name(segment_start)
            cut = dice.randrange(len(text) + 2)
            for piece in ((text + b"\n")[:cut], (text + b"\n")[cut:]):
                append(path, piece)
                look()
            expected.append((offset, text))
            start, end = segment_start, offset + len(text) + 1
    found.extend(drain(reader))
    assert found == expected
    assert reader.events == []


# ---- where an offset may stand


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 120))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_aligning_never_skips_a_whole_record(tmp_path: Path, lengths: list[int], torn: int, offset: int) -> None:
    """Cases 4 and 7: in mid-record, behind the end, inside a torn rest."""
    for path in tmp_path.iterdir():
        path.unlink()
    first = sum(length + 1 for length in lengths[:3])
    put(tmp_path, 0, b"".join(b"x" * length + b"\n" for length in lengths[:3]))
    put(tmp_path, first, b"".join(b"y" * length + b"\n" for length in lengths[3:]) + b"t" * torn)
    borders = [sum(length + 1 for length in lengths[:count]) for count in range(len(lengths) + 1)]
    end = borders[-1]
    aligned, reason = align_offset(tmp_path, offset)
    assert aligned == max(border for border in borders if border <= offset)
    assert (reason is None) == (aligned == offset)
    if offset > end + torn:
        assert (aligned, reason) == (end, "past the end")
    assert align_offset(tmp_path, aligned) == (aligned, None)
    assert channel_end(tmp_path) == end


def test_an_offset_one_past_the_size_that_was(tmp_path: Path) -> None:
    """Case 4: Go up to 1.12 stored size + 1, and the next record came since."""
    path = put(tmp_path, 0, b'{"v":1,"n":1}')
    offset = path.stat().st_size + 1
    append(path, b'\n{"v":1,"n":2}\n')
    assert align_offset(tmp_path, offset) == (offset, None)
    assert align_offset(tmp_path, offset + 1) == (offset, "inside a record")


def test_a_long_record_is_gone_back_over(tmp_path: Path) -> None:
    put(tmp_path, 100, b"a\n" + b"x" * 300_000 + b"\n")
    assert align_offset(tmp_path, 250_000) == (102, "inside a record")
    put(tmp_path, 100, b"x" * 300_000)
    assert align_offset(tmp_path, 250_000) == (100, "inside a record")
    assert channel_end(tmp_path) == 100


# ---- starting at a time


def number_of(line: bytes) -> int | None:
    return int(line) if line.isdigit() else None


def test_starting_at_a_time(tmp_path: Path) -> None:
    """Case 30: equal times at the cut-off, unreadable lines, a clock set back."""
    put(tmp_path, 0, b"1\n2\nx\n")
    put(tmp_path, 6, b"5\n5\n3\n")
    put(tmp_path, 12, b"7\n4\nx\n")
    for cutoff, offset in ((0, 0), (2, 2), (3, 6), (5, 6), (6, 12), (8, 18)):
        assert first_offset_since(tmp_path, cutoff, number_of) == offset, cutoff
    assert first_offset_since(tmp_path, 5, number_of, from_offset=8) == 8
    assert first_offset_since(tmp_path, 5, number_of, from_offset=10) == 12
    assert first_offset_since(tmp_path, 9, number_of, from_offset=18) == 18
    assert first_offset_since(tmp_path / "none", 9, number_of) == 0


def test_segments_that_are_old_as_a_whole_are_not_read(tmp_path: Path) -> None:
    for start in (0, 3, 6):
        path = put(tmp_path, start, b"%d\n" % (50 + start))
        os.utime(path, ns=(0, start * 10**9))
    seen: list[bytes] = []

    def ts_of_line(line: bytes) -> int | None:
        seen.append(line)
        return int(line) * 10**9

    assert first_offset_since(tmp_path, 56 * 10**9, ts_of_line) == 6
    assert seen == [b"56"], "only the active segment may hold something new"
    assert first_offset_since(tmp_path, 5 * 10**9, ts_of_line) == 3, "its mtime is within the slack"
    assert seen == [b"56", b"53"]


# ---- the Go program's files


@pytest.mark.parametrize("channel", ["alerts", "alerts.dead-letter", "bulk"])
def test_the_go_fixture_is_read_completely(channel: str) -> None:
    reader = SegmentReader(FIXTURE / channel, 0)
    found = drain(reader)
    reader.close()
    assert [event.event for event in reader.events] == []
    data = b"".join(path.read_bytes() for path in sorted((FIXTURE / channel).iterdir()))
    assert b"".join(line + b"\n" for _, line in found) == data
    assert channel_end(FIXTURE / channel) == len(data) == reader.offset
    assert all(data.startswith(line + b"\n", offset) for offset, line in found)
    assert [json.loads(line)["channel"] for _, line in found] == [channel] * len(found)
    for offset, _ in found[:: max(1, len(found) // 50)]:
        assert align_offset(FIXTURE / channel, offset) == (offset, None)
