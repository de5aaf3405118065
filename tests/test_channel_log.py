"""The append side of a channel: plans, rolls, partial writes, and what a crash left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyop.protocol import entry
from keyop.storage import disk
from keyop.storage.channel_log import ChannelLog, Descriptors, ForeignWrite, SegmentFile
from keyop.storage.segments import list_segments, segment_name

ROLL = 100


def opened(directory: Path, roll: int = ROLL, descriptors: Descriptors | None = None) -> ChannelLog:
    log = ChannelLog(b"c", directory, roll, descriptors)
    log.open()
    return log


def commit(log: ChannelLog, dirty: set[SegmentFile] | None = None) -> list[entry.Entry]:
    """What a round does with a plan; the entries that its frame would hold."""
    log.prepare()
    entries = [item for packed in log.frame_entries() for item in entry.decode(packed, 0, len(packed))]
    log.apply(set() if dirty is None else dirty)
    return entries


def layout(directory: Path) -> list[tuple[int, bytes]]:
    return [(segment.start, segment.path.read_bytes()) for segment in list_segments(directory)[0]]


def line(number: int, length: int) -> bytes:
    return (b"%d" % number).ljust(length - 1, b".") + b"\n"


# ---- opening


def test_a_new_channel_begins_at_0(tmp_path: Path) -> None:
    log = opened(tmp_path / "c")
    assert (log.end, layout(tmp_path / "c")) == (0, [(0, b"")])


def test_a_torn_last_line_is_cut_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / segment_name(0)).write_bytes(b"torn in a sealed one")
    (tmp_path / segment_name(20)).write_bytes(b"\0\0\n{}\n{torn")
    log = opened(tmp_path)
    assert log.end == 20 + 6
    assert layout(tmp_path) == [(0, b"torn in a sealed one"), (20, b"\0\0\n{}\n")]


def test_a_torn_line_of_several_blocks_is_cut(tmp_path: Path) -> None:
    (tmp_path / segment_name(0)).write_bytes(b"{}\n" + b"x" * 200_000)
    assert opened(tmp_path).end == 3


def test_a_cut_is_on_the_device_before_anything_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old bytes behind the beginning of a new line would pass for a line that another program wrote."""
    path = tmp_path / segment_name(0)
    path.write_bytes(b"{}\n{torn")
    synced: dict[Path, int] = {}
    real = disk.sync_path
    monkeypatch.setattr(disk, "sync_path", lambda path: (synced.update({path: path.stat().st_size}), real(path)))
    opened(tmp_path)
    assert synced == {path: 3}


def test_segments_made_for_a_commit_that_never_was_are_no_gap(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 60))
    commit(log)
    log.plan(line(1, 30) + line(2, 60) + line(3, 80))
    log.prepare()  # and killed before the frame was written
    assert [start for start, _ in layout(tmp_path)] == [0, 90, 150]
    again = opened(tmp_path)
    assert layout(tmp_path) == [(0, line(0, 60))]
    again.plan(line(1, 30) + line(2, 60))
    commit(again)
    assert layout(tmp_path) == [(0, line(0, 60) + line(1, 30)), (90, line(2, 60))]


def test_an_empty_segment_stays_where_a_subscriber_has_been_or_where_it_belongs(tmp_path: Path) -> None:
    """An old Go directory may have lost a file in between: offsets are not given twice."""
    (tmp_path / segment_name(0)).write_bytes(b"{}\n")
    (tmp_path / segment_name(500)).write_bytes(b"")
    log = ChannelLog(b"c", tmp_path, ROLL)
    log.open(lambda: 500)
    assert (log.end, [start for start, _ in layout(tmp_path)]) == (500, [0, 500])
    (tmp_path / segment_name(500)).rename(tmp_path / segment_name(3))
    assert opened(tmp_path).end == 3
    assert [start for start, _ in layout(tmp_path)] == [0, 3]


# ---- planning


def test_a_roll_in_mid_batch_is_one_frame_of_several_entries(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 60))
    commit(log)
    lines = [line(number, 30) for number in range(1, 8)]
    log.plan(b"".join(lines))
    entries = commit(log)
    assert [(item.value, len(item.data), item.flags) for item in entries] == [
        (60, 30, 0),
        (90, 90, entry.STARTS_SEGMENT),
        (180, 90, entry.STARTS_SEGMENT),
    ]
    assert layout(tmp_path) == [
        (0, line(0, 60) + lines[0]),
        (90, b"".join(lines[1:4])),
        (180, b"".join(lines[4:7])),
    ]


def test_only_a_single_line_may_be_over_the_roll_size(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 10) + line(1, 250) + line(2, 10) + line(3, 95))
    commit(log)
    assert layout(tmp_path) == [(0, line(0, 10)), (10, line(1, 250)), (260, line(2, 10)), (270, line(3, 95))]


def test_a_negative_roll_size_never_rolls(tmp_path: Path) -> None:
    log = opened(tmp_path, -1)
    for number in range(20):
        log.plan(line(number, 90))
    commit(log)
    assert [(start, len(data)) for start, data in layout(tmp_path)] == [(0, 1800)]


def test_spilled_lines_are_named_not_held(tmp_path: Path) -> None:
    log = opened(tmp_path)
    lines = line(0, 40) + line(1, 40) + line(2, 40)
    log.plan(line(9, 20))
    log.plan_spilled(b"ring-1", 77, lines)
    log.plan(line(8, 20))
    entries = commit(log)
    assert [item.kind for item in entries] == [entry.APPEND, entry.SPILLED, entry.SPILLED, entry.APPEND]
    references = [entry.SPILL_REFERENCE.unpack(item.data)[:2] for item in entries[1:3]]
    assert references == [(77, 80), (157, 40)]
    assert b"".join(data for _, data in layout(tmp_path)) == line(9, 20) + lines + line(8, 20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.lists(st.integers(2, 160), min_size=1, max_size=6), st.booleans()), max_size=4),
        max_size=5,
    ),
    roll=st.sampled_from((-1, 1, 50, 100, 333)),
)
def test_segments_follow_each_other_within_the_roll_size(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[list[int], bool]]], roll: int
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = opened(directory, roll)
    every = b""
    frames = []
    for batches in rounds:
        for lengths, spilled in batches:
            lines = b"".join(line(number, length) for number, length in enumerate(lengths))
            every += lines
            if spilled:
                log.plan_spilled(b"s", 0, lines)
            else:
                log.plan(lines)
        for item in commit(log):
            length = len(item.data) if item.kind == entry.APPEND else entry.SPILL_REFERENCE.unpack(item.data)[1]
            frames.append((item.value, length, bool(item.flags & entry.STARTS_SEGMENT)))
    segments = layout(directory)
    assert b"".join(data for _, data in segments) == every
    at = 0
    for start, data in segments:
        assert start == at
        assert roll <= 0 or len(data) <= roll or data.count(b"\n") == 1
        assert data.endswith(b"\n") or not data
        at += len(data)
    assert (log.end, log.planned_end, log.records) == (at, at, every.count(b"\n"))
    assert sum(length for _, length, _ in frames) == at
    assert {offset for offset, _, starts in frames if starts} == {start for start, _ in segments if start}


def test_names_of_new_segments_are_synced_before_a_frame_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case: the name of an earlier one lost, that of a later one kept, would look like a removal on purpose."""
    log = opened(tmp_path)
    log.plan(line(0, 90) + line(1, 90) + line(2, 90))
    synced: list[list[int]] = []
    failing = True

    def sync(path: Path) -> None:
        nonlocal failing
        if failing:
            failing = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced.append([start for start, _ in layout(path)])

    monkeypatch.setattr(disk, "sync_path", sync)
    with pytest.raises(OSError, match="Input/output"):
        log.prepare()
    log.prepare()
    assert synced == [[0], [0, 90, 180]]


# ---- a disk that is full


class Full:
    """A `disk.write_at` that has room for so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        monkeypatch.setattr(disk, "write_at", self)

    def __call__(self, fd: int, data: bytes, position: int) -> None:
        size = os.fstat(fd).st_size
        count = max(0, min(size + self.room - position, len(data)))
        self.room -= max(0, position + count - size)
        os.pwrite(fd, data[:count], position)
        if count < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_after_a_partial_write_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    log.plan(b"".join(line(number, 40) for number in range(5)))
    log.prepare()
    list(log.frame_entries())
    full = Full(monkeypatch, 0)
    dirty = set()
    for _ in range(20):
        full.room += 13
        try:
            log.apply(dirty)
        except OSError:
            continue
        break
    assert layout(tmp_path) == [
        (0, line(0, 40) + line(1, 40)),
        (80, line(2, 40) + line(3, 40)),
        (160, line(4, 40)),
    ]
    # What was written before it failed waits for a checkpoint as well.
    assert sorted(segment.start for segment in dirty) == [0, 80, 160]
    assert log.end == 200


def test_full_exactly_at_a_roll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 90))
    commit(log)
    log.plan(line(1, 90))
    open_file = disk.open_file

    def no_room(path: Path, flags: int = os.O_RDWR, mode: int = 0o644) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "open_file", no_room)
    with pytest.raises(OSError, match="space"):
        log.prepare()
    monkeypatch.setattr(disk, "open_file", open_file)
    commit(log)
    assert layout(tmp_path) == [(0, line(0, 90)), (90, line(1, 90))]


# ---- other programs, descriptors


@pytest.mark.parametrize("foreign", [b'{"v":1}\n', b"x", b""])
def test_a_segment_of_another_length_is_left_alone(tmp_path: Path, foreign: bytes) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 40))
    commit(log)
    path = tmp_path / segment_name(0)
    path.write_bytes(line(0, 40) + foreign if foreign else b"")
    before = path.read_bytes()
    log.plan(line(1, 40))
    list(log.frame_entries())
    with pytest.raises(ForeignWrite):
        log.apply(set())
    assert path.read_bytes() == before


@pytest.mark.parametrize("when", ["before it is made", "before it is written"])
def test_another_programs_lines_are_seen_where_the_next_segment_would_lie_across_them(
    tmp_path: Path, when: str
) -> None:
    log = opened(tmp_path)
    log.plan(line(0, 90))
    commit(log)
    log.plan(line(1, 90))
    path = tmp_path / segment_name(0)
    theirs = b'{"v":1}\n'
    if when == "before it is made":
        path.write_bytes(line(0, 90) + theirs)
        with pytest.raises(ForeignWrite):
            log.prepare()
        assert layout(tmp_path) == [(0, line(0, 90) + theirs)]
    else:
        log.prepare()
        list(log.frame_entries())
        path.write_bytes(line(0, 90) + theirs)
        with pytest.raises(ForeignWrite):
            log.apply(set())
        assert layout(tmp_path) == [(0, line(0, 90) + theirs), (90, b"")]


def test_the_name_of_the_first_segment_is_on_the_device_before_another_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory keeps any of its changes: without the first name, all that the journal has of it were passed over."""
    seen: list[list[int]] = []
    real = disk.sync_path

    def sync(path: Path) -> None:
        if path == tmp_path:
            seen.append([start for start, _ in layout(tmp_path)])
        real(path)

    monkeypatch.setattr(disk, "sync_path", sync)
    log = opened(tmp_path)
    log.plan(line(0, 90) + line(1, 90))
    commit(log)
    assert seen == [[0], [0, 90]]
    log.plan(line(2, 90))
    commit(log)
    assert seen == [[0], [0, 90], [0, 90, 180]]


def test_descriptors_are_counted_and_none_is_left_behind(tmp_path: Path) -> None:
    descriptors = Descriptors()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    log = opened(tmp_path, ROLL, descriptors)
    for number in range(10):
        dirty = set()
        log.plan(line(number, 80))
        commit(log, dirty)
        for segment in dirty:  # the checkpoint has synced it
            segment.dirty -= 1
            if log.active is not segment:
                segment.close()
    assert descriptors.open == 1
    assert log.active is not None
    log.active.close()
    log.plan(line(10, 10))
    commit(log)
    assert descriptors.open == 1
    log.active.close()
    assert descriptors.open == 0
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
