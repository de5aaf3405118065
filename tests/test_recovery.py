"""Recovery: what the journal says is in the segments afterwards, once, at its place, whatever a crash left there."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyop.protocol import entry
from keyop.storage import disk, recovery
from keyop.storage.channel_log import ChannelLog, SegmentFile
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import NAMES, Journal
from keyop.storage.recovery import Recovered, free_journal, recover
from keyop.storage.segments import list_segments, segment_name

SIZE = 16 << 10
ROLL = 900


def envelope(number: int, pad: int = 0, origin: str = "ours") -> bytes:
    """A line like ours; lines of different numbers differ in many bytes, as ids and times do."""
    id = random.Random(f"{origin}{number}").randbytes(16).hex()
    text = {"v": 1, "id": id, "ts": "2026-01-01T00:00:00Z", "channel": "c", "n": number, "payload": "x" * pad}
    return json.dumps(text, separators=(",", ":")).encode() + b"\n"


class Store:
    """What the writer does to the files in one commit, without the writer."""

    def __init__(self, path: Path, *, size: int = SIZE, roll: int = ROLL) -> None:
        self.directory = DataDirectory(path)
        self.directory.make()
        self.size = size
        self.roll = roll
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.directory.journal, self.size, lambda _errno: None)
        self.logs: dict[bytes, ChannelLog] = {}
        self.dirty: set[SegmentFile] = set()

    def log(self, channel: bytes = b"c") -> ChannelLog:
        if channel not in self.logs:
            log = ChannelLog(channel, self.directory.channel(channel.decode()), self.roll)
            log.open()
            self.logs[channel] = log
        return self.logs[channel]

    def commit(
        self,
        lines: Iterable[bytes] = (),
        *,
        channel: bytes = b"c",
        also: Iterable[bytes] = (),
        sync: bool = True,
        apply: bool = True,
        spill: bytes = b"",
    ) -> None:
        """One frame, and what follows from it. ``also``: further entries of the frame."""
        log = self.log(channel)
        data = b"".join(lines)
        if data and spill:
            (self.directory.spill / spill.decode()).write_bytes(data)
            log.plan_spilled(spill, 0, data)
        elif data:
            log.plan(data)
        log.prepare()
        entries = [*log.frame_entries(), *also]
        if not self.journal.fits(sum(map(len, entries))):
            self.checkpoint()
        self.journal.write(entries)
        if sync:
            self.journal.sync()
        if apply:
            log.apply(self.dirty)

    def checkpoint(self) -> None:
        left = self.journal.switch()
        for segment in self.dirty:
            disk.sync_data(segment.fd)
            segment.dirty -= 1
            if all(log.active is not segment for log in self.logs.values()):
                segment.close()
        self.dirty.clear()
        self.journal.free(left)

    def close(self) -> None:
        self.journal.close()
        for segment in self.dirty:
            segment.close()
        for log in self.logs.values():
            if log.active is not None:
                log.active.close()

    def recover(self) -> Recovered:
        """As a writer that starts."""
        self.close()
        result = recover(self.directory)
        free_journal(result)
        self.open()
        return result

    def segments(self, channel: str = "c") -> dict[int, bytes]:
        return {at.start: at.path.read_bytes() for at in list_segments(self.directory.channel(channel))[0]}

    def path(self, start: int = 0, channel: str = "c") -> Path:
        return self.directory.channel(channel) / segment_name(start)


@pytest.fixture
def store(tmp_path: Path) -> Iterable[Store]:
    made = Store(tmp_path / "data")
    yield made
    made.close()


def put(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


A, B, C, D = (envelope(number) for number in range(4))


# ---- the plain rules


def test_at_rest_there_is_nothing_to_do(store: Store) -> None:
    store.commit([A])
    store.checkpoint()
    found = store.recover()
    assert found.clean
    assert store.segments() == {0: A}


def test_a_frame_that_was_not_applied_is(store: Store) -> None:
    store.commit([A])
    store.commit([B, C], apply=False)
    found = store.recover()
    assert (found.frames, found.notes, found.ends) == (2, [], {b"c": len(A + B + C)})
    assert store.segments() == {0: A + B + C}
    assert store.recover().clean


def test_half_of_an_apply_zeros_and_an_older_length_are_written_over(store: Store) -> None:
    for damage, cut in (
        (lambda: put(store.path(), len(A) + 10, bytes(50)), False),
        (lambda: os.truncate(store.path(), len(A) + 5), False),
        (lambda: os.truncate(store.path(), 0), False),
        (lambda: os.truncate(store.path(), 5000), True),
        (lambda: store.path().write_bytes(b"\xff" * 300), False),
        (lambda: store.path().write_bytes(b"\xff" * 3000), True),
        (lambda: store.path().unlink(), False),
    ):
        for path in store.directory.channel("c").glob("*"):
            path.unlink()
        store.logs.clear()
        store.commit([A])
        store.commit([B])
        store.commit([C])
        damage()
        assert [" were cut, " in note for note in store.recover().notes] == [True] * cut
        assert store.segments() == {0: A + B + C}


def test_the_directory_of_a_new_channel_may_be_gone(store: Store) -> None:
    store.commit([A], channel=b"new")
    store.path(0, "new").unlink()
    store.directory.channel("new").rmdir()
    store.recover()
    assert store.segments("new") == {0: A}


def test_what_follows_the_last_entry_stays_if_it_is_whole_and_is_cut_if_it_is_torn(store: Store) -> None:
    store.commit([A])
    foreign = envelope(1, origin="go")
    with store.path().open("ab") as file:
        file.write(foreign + b'{"v":1,"torn')
    found = store.recover()
    assert store.segments() == {0: A + foreign}
    assert found.ends == {b"c": len(A + foreign)}
    assert found.notes == [f"{store.path()}: 12 bytes at {len(A + foreign)} were cut, the torn rest of a last line"]


def test_a_roll_in_a_frame_is_done_again(store: Store) -> None:
    lines = [envelope(number, 150) for number in range(12)]
    store.commit(lines)
    whole = store.segments()
    assert len(whole) > 3
    for start in list(whole)[1:]:
        store.path(start).unlink()
    os.truncate(store.path(), 77)
    store.recover()
    assert store.segments() == whole


def test_a_segment_that_begins_with_a_frame_is_made_even_where_the_one_before_is_long_enough(store: Store) -> None:
    lines = [envelope(number, 300) for number in range(4)]
    for line in lines:
        store.commit([line])
    whole = store.segments()
    starts = sorted(whole)
    store.path(starts[1]).unlink()
    put(store.path(starts[0]), len(whole[starts[0]]), b"\0" * 2000)
    store.recover()
    assert {start: data.rstrip(b"\0") for start, data in store.segments().items()} == whole


def test_entries_below_the_first_segment_were_removed_on_purpose(store: Store) -> None:
    lines = [envelope(number, 300) for number in range(6)]
    for line in lines:
        store.commit([line])
    whole = store.segments()
    first = min(whole)
    store.path(first).unlink()
    removed = len(whole.pop(first))
    (note,) = store.recover().notes
    assert f"{removed} bytes at 0 are not restored" in note
    assert store.segments() == whole


def test_what_lay_in_a_removed_segment_goes_and_nothing_else(store: Store) -> None:
    """A power cut took all but the first line from a segment, then another program rolled and removed that one."""
    store.commit([A])
    store.commit([B, C])
    foreign = envelope(9, origin="go")
    store.path().unlink()
    store.path(len(A)).write_bytes(foreign)
    found = store.recover()
    assert store.segments() == {len(A): foreign + B + C}
    assert [note for note in found.notes if "was removed meanwhile" in note]
    assert found.conflicts == {b"c": len(A)}


def test_a_frame_that_is_lost_leaves_a_gap_not_zeros(store: Store) -> None:
    """Proven to have been synced and damaged since: only it is lost. Also where a later segment exists already."""
    roomy = [envelope(number, 300) for number in range(6)]
    for line in roomy:
        store.commit([line])
    whole = store.segments()
    first, second = sorted(whole)[:2]
    assert whole[first] == roomy[0] + roomy[1]
    data = (store.directory.journal / NAMES[0]).read_bytes()
    at = data.index(roomy[0])
    put(store.directory.journal / NAMES[0], at, b"?")
    store.path(first).write_bytes(b"")
    found = store.recover()
    assert any("frames 1 to 1 are damaged and lost" in note for note in found.notes)
    after = store.segments()
    assert after.pop(first) == b""
    assert after.pop(len(roomy[0])) == roomy[1]
    whole.pop(first)
    assert after == whole
    assert second in after


# ---- spill files


def test_spilled_lines_come_from_their_file(store: Store) -> None:
    store.commit([A, B], spill=b"00000000000000ff-1", apply=False)
    store.commit([C], apply=False)
    found = store.recover()
    assert store.segments() == {0: A + B + C}
    assert found.spills == {b"00000000000000ff-1"}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"?" * 20)])
def test_a_spill_file_that_is_gone_loses_its_own_lines_only(store: Store, damage: Callable[[Path], object]) -> None:
    store.commit([A])
    store.commit([B], spill=b"00000000000000ff-1", apply=False)
    store.logs[b"c"].chunks.clear()
    store.logs[b"c"].planned_end = store.logs[b"c"].end = len(A + B)
    store.commit([C], apply=False)
    damage(store.directory.spill / "00000000000000ff-1")
    found = store.recover()
    assert any("are lost with" in note for note in found.notes)
    assert store.segments() == {0: A, len(A + B): C}


# ---- another program's lines


def test_foreign_lines_stay_and_ours_follow_behind_them(store: Store) -> None:
    store.commit([A])
    foreign = [envelope(number, origin="go") for number in range(2)]
    with store.path().open("ab") as file:
        file.write(b"".join(foreign))
    store.commit([B, C], apply=False)
    found = store.recover()
    assert store.segments() == {0: A + foreign[0] + foreign[1] + B + C}
    assert found.conflicts == {b"c": len(A)}
    assert len(found.notes) == 1
    assert found.cap(b"c", len(A + B)) == len(A)
    assert found.cap(b"c", 3) == 3


def test_foreign_lines_in_the_place_of_several_frames(store: Store) -> None:
    store.commit([A])
    foreign = [envelope(number, 40, origin="go") for number in range(3)]
    with store.path().open("ab") as file:
        file.write(b"".join(foreign))
    log = store.logs[b"c"]
    for line in (B, C, D):
        store.commit([line], apply=False)
        log.chunks.clear()
        log.end = log.planned_end
    store.recover()
    assert store.segments() == {0: A + b"".join(foreign) + B + C + D}


def test_a_second_program_that_wrote_behind_a_killed_recovery_keeps_its_lines_too(store: Store) -> None:
    store.commit([A])
    first, second = envelope(1, origin="go"), envelope(2, 30, origin="go")
    with store.path().open("ab") as file:
        file.write(first + B + second)
    store.commit([B, C, D], apply=False)
    store.recover()
    assert store.segments() == {0: A + first + B + second + C + D}


def test_another_program_that_has_rolled_itself(store: Store) -> None:
    """Ours do not lie across its next segment: an offset there would mean two places."""
    store.commit([A])
    first, second = envelope(1, origin="go"), envelope(2, 30, origin="go")
    with store.path().open("ab") as file:
        file.write(first)
    store.path(len(A + first)).write_bytes(second)
    store.commit([B, C], apply=False)
    store.recover()
    assert store.segments() == {0: A + first, len(A + first): second + B + C}
    again = store.recover()
    assert again.notes == []


def test_another_program_that_rolls_behind_a_killed_recovery(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been brought to its place before stays there, and is not written a second time."""
    store.commit([A])
    first, second = envelope(1, origin="go"), envelope(2, 30, origin="go")
    with store.path().open("ab") as file:
        file.write(first)
    store.commit([B, C, D], apply=False)
    store.close()
    recover(store.directory)  # and killed before it freed the journal
    os.truncate(store.path(), len(A + first + B))  # then the power went
    store.path(len(A + first + B)).write_bytes(second)
    store.open()
    store.recover()
    assert store.segments() == {0: A + first + B, len(A + first + B): second + C + D}


def test_another_programs_lines_where_a_segment_of_ours_is_to_begin(store: Store) -> None:
    """Its name was lost with the power, and the other program went on with the segment before."""
    lines = [envelope(number, 300) for number in range(3)]
    for line in lines:
        store.commit([line])
    starts = sorted(store.segments())
    assert starts == [0, len(lines[0] + lines[1])]
    store.path(starts[1]).unlink()
    foreign = envelope(1, origin="go")
    with store.path().open("ab") as file:
        file.write(foreign)
    store.recover()
    assert store.segments() == {0: lines[0] + lines[1] + foreign + lines[2]}


def test_segments_that_were_made_behind_another_programs_lines_do_not_lie_across_ours(store: Store) -> None:
    lines = [envelope(number, 300) for number in range(6)]
    store.commit(lines[:2])
    foreign = envelope(1, 100, origin="go")
    store.commit(lines[2:], apply=False)
    starts = sorted(store.segments())
    assert len(starts) > 2
    with store.path(starts[1]).open("ab") as file:
        file.write(foreign)
    store.logs[b"c"].chunks.clear()
    store.recover()
    after = store.segments()
    assert after == {0: b"".join(lines[:2]), starts[1]: foreign + b"".join(lines[2:])}


def test_names_of_segments_come_to_the_device_in_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        store.commit([envelope(number, 500)])
    whole = store.segments()
    assert len(whole) > 2
    for start in whole:
        store.path(start).unlink()
    store.close()
    synced: list[int] = []
    real = disk.sync_path

    def sync(path: Path) -> None:
        if path == store.directory.channel("c"):
            synced.append(len(list_segments(path)[0]))
        real(path)

    monkeypatch.setattr(disk, "sync_path", sync)
    recover(store.directory)
    assert synced == [*range(1, len(whole)), len(whole)]
    store.open()


@pytest.mark.parametrize("torn_bytes", [1, 2, 4, 5, 40])
def test_a_foreign_line_glued_to_our_torn_one_is_a_line_of_theirs(store: Store, torn_bytes: int) -> None:
    """Go up to 1.12 appends to a torn line; its reader of ours finds the envelope at the end of it."""
    store.commit([A])
    glued = B[:torn_bytes] + envelope(7, origin="go")
    with store.path().open("ab") as file:
        file.write(glued)
    store.commit([B, C], apply=False)
    store.recover()
    assert store.segments() == {0: A + glued + B + C}


def test_a_few_flipped_bytes_in_our_line_are_damage_not_another_program(store: Store) -> None:
    store.commit([A, B])
    put(store.path(), len(A) + 30, b"????")
    assert store.recover().conflicts == {}
    assert store.segments() == {0: A + B}


@pytest.mark.parametrize("tail", [b"", b'{"v":1,"torn'])
def test_ours_do_not_begin_inside_of_a_foreign_line(tmp_path: Path, tail: bytes) -> None:
    """What came before them lay in a segment that was removed, and the other program's lines have other lengths."""
    store = Store(tmp_path / "data", roll=5000)
    lines = [envelope(number, 250) for number in range(4)]
    store.commit(lines[:2])
    store.commit(lines[2:], apply=False)
    foreign = [envelope(7, 500, origin="go"), envelope(8, origin="go")]
    start = len(lines[0]) + 100
    store.path().unlink()
    store.path(start).write_bytes(b"".join(foreign) + tail)
    found = store.recover()
    assert store.segments() == {start: b"".join([*foreign, *lines[2:]])}
    assert found.conflicts == {b"c": start}
    store.close()


# ---- cursors, rings, forgotten ids


def cursor(id: bytes, moves: int, offset: int) -> bytes:
    return entry.encode(entry.CURSOR, b"c", id, value=offset, data=entry.CURSOR_STATE.pack(moves, offset, 0))


def test_of_a_cursor_the_highest_count_is_the_truth(store: Store) -> None:
    store.commit([A], also=[cursor(b"s", 3, 0)])
    store.commit([B], also=[cursor(b"s", 5, len(A)), cursor(b"t", 1, 0)])
    store.commit(also=[cursor(b"s", 4, 0)])
    found = store.recover()
    assert {key[1]: (at.moves, at.offset) for key, (at,) in found.cursors.items()} == {
        b"s": (5, len(A)),
        b"t": (1, 0),
    }


def parts(id: bytes, *places: tuple[int, int]) -> bytes:
    states = b"".join(entry.PART_STATE.pack(offset, moves, offset, 0) for moves, offset in places)
    return entry.encode(entry.PARTS, b"c", id, value=min(offset for _, offset in places), data=states)


def test_parts_are_known_by_one_frame_and_each_by_its_own_count(store: Store) -> None:
    store.commit([A], also=[parts(b"s", (3, 0), (7, len(A)))])
    store.commit([B], also=[parts(b"s", (4, len(A)), (6, 0))])
    found = store.recover()
    assert [(at.moves, at.offset) for at in found.cursors[b"c", b"s"]] == [(4, len(A)), (7, len(A))]


@pytest.mark.parametrize("before", [cursor(b"s", 90, 0), parts(b"s", (90, 0), (91, 0), (92, 0))])
def test_another_number_of_parts_takes_the_place_of_what_was(store: Store, before: bytes) -> None:
    store.commit([A], also=[before])
    store.commit(also=[parts(b"s", (5, len(A)), (6, len(A)))])
    assert [at.moves for at in store.recover().cursors[b"c", b"s"]] == [5, 6]
    store.commit([B], also=[parts(b"s", (90, 0), (91, 0))])
    store.commit(also=[cursor(b"s", 4, len(A))])
    assert [at.moves for at in store.recover().cursors[b"c", b"s"]] == [4]


def test_parts_that_were_forgotten_leave_no_file(store: Store) -> None:
    files = store.directory.offset_file("c", "s"), store.directory.parts_file("c", "s")
    files[0].parent.mkdir()
    for path in files:
        path.write_bytes(b"7\n")
    store.commit([A], also=[parts(b"s", (1, 0), (1, 0)), entry.encode(entry.FORGET, b"c", b"s")])
    assert store.recover().cursors == {}
    assert not any(path.exists() for path in files)


def test_a_forgotten_id_does_not_come_back_and_one_that_came_again_does(store: Store) -> None:
    for id in ("gone", "again"):
        path = store.directory.offset_file("c", id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"7\n")
    forget = [entry.encode(entry.FORGET, b"c", id) for id in (b"gone", b"again")]
    store.commit([A], also=[cursor(b"gone", 9, 0), cursor(b"again", 9, 0)])
    store.commit(also=forget)
    store.commit(also=[cursor(b"again", 1, len(A))])
    found = store.recover()
    assert {key[1]: at.offset for key, (at,) in found.cursors.items()} == {b"again": len(A)}
    assert not store.directory.offset_file("c", "gone").exists()
    assert store.directory.offsets("c") in found.touched


def test_a_directory_in_the_place_of_a_forgotten_offset_stops_nothing(store: Store) -> None:
    store.directory.offset_file("c", "s").mkdir(parents=True)
    store.commit([A], also=[entry.encode(entry.FORGET, b"c", b"s")])
    assert any("cannot be removed" in note for note in store.recover().notes)
    assert store.segments() == {0: A}


def test_rings_get_their_last_position_and_all_answers(store: Store) -> None:
    def ring(position: int, *answers: tuple[int, int, int]) -> bytes:
        packed = b"".join(entry.REPLY.pack(*answer) for answer in answers)
        return entry.encode(entry.RING, value=77, data=entry.POSITION.pack(position) + packed)

    store.commit([A], also=[ring(100, (100, 0, 1))])
    store.commit([B], also=[ring(250, (200, 2, 3), (250, 0, 4))])
    assert store.recover().rings == {77: (250, [(100, 0, 1), (200, 2, 3), (250, 0, 4)])}


def test_the_older_file_is_freed_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the newer one went first and the power then, the next start would see a hole between the files."""
    store.commit([A])
    store.journal.switch()
    store.commit([B])
    store.close()
    recovered = recover(store.directory)

    def die(name: str) -> None:
        if name == "recovery.zeroed":
            raise Killed

    monkeypatch.setattr(disk, "step", die)
    with pytest.raises(Killed):
        free_journal(recovered)
    monkeypatch.undo()
    assert [item.sequence for item in recovery.JournalContents(store.directory.journal / NAMES[0]).frames] == []
    assert recover(store.directory).frames == 1
    store.open()


def test_a_file_whose_freeing_was_not_synced_is_freed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads as free and is not so on the device: the kernel has dropped the zeros, and the next sync succeeds."""
    store.commit([A])
    store.journal.switch()
    store.commit([B])
    store.close()
    recovered = recover(store.directory)
    synced: dict[str, bytes] = {}
    failures = 1

    def sync(fd: int) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced[Path(os.readlink(f"/proc/self/fd/{fd}")).name] = os.pread(fd, 8, 0)

    monkeypatch.setattr(disk, "sync_data", sync)
    with pytest.raises(OSError, match="Input/output"):
        free_journal(recovered)
    free_journal(recovered)
    assert synced == dict.fromkeys(NAMES, bytes(8))
    store.open()


def test_a_header_that_was_zeroed_in_memory_only_does_not_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer was killed before it had synced the zeros, its successor finds the file free, and the power goes."""
    cuts = PowerCuts(monkeypatch)
    store.commit([A], also=[cursor(b"s", 3, 0)])
    left = store.journal.switch()
    store.commit([B], also=[cursor(b"s", 5, len(A))])
    _kill_at(monkeypatch, "free.zeroed")
    with pytest.raises(Killed):
        store.journal.free(left)
    monkeypatch.setattr(disk, "step", lambda _name: None)
    found = store.recover()
    assert found.cursors[b"c", b"s"][0].offset == len(A)
    store.close()
    for name in NAMES:
        path = store.directory.journal / name
        path.write_bytes(cuts.device[str(path)])
    assert recover(store.directory).clean
    store.open()


def test_the_journal_is_written_again_before_recovery_acts_on_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed sync has dropped is still to be read, and gone with the power: half of it would be applied."""
    store.commit([A])
    store.commit([B], sync=False, apply=False)
    store.close()
    order: list[tuple[str, str]] = []
    write_at, sync_data = disk.write_at, disk.sync_data

    def write(fd: int, data: bytes, position: int) -> None:
        order.append(("write", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        if order[-1][1] == NAMES[0]:
            assert B in data
        write_at(fd, data, position)

    def sync(fd: int) -> None:
        order.append(("sync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        sync_data(fd)

    monkeypatch.setattr(disk, "write_at", write)
    monkeypatch.setattr(disk, "sync_data", sync)
    recover(store.directory)
    monkeypatch.undo()
    named = [item for item in order if item[1] != NAMES[1]]
    assert named[:3] == [("write", NAMES[0]), ("sync", NAMES[0]), ("write", segment_name(0))]
    store.open()


def test_names_are_synced_though_they_are_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer that made the channel and its segment may have been killed before it synced their names."""
    store.commit([A])
    store.close()
    synced: list[Path] = []
    real = disk.sync_path
    monkeypatch.setattr(disk, "sync_path", lambda path: (synced.append(path), real(path)))
    recover(store.directory)
    assert {store.directory.channel("c"), store.directory.channels, store.path()} <= set(synced)
    store.open()


def test_a_full_disk_is_told_and_changes_nothing_for_the_next_try(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit([A])
    store.commit([B, C], apply=False)
    store.close()

    def full(fd: int, data: bytes, position: int) -> None:
        os.pwrite(fd, data[:7], position)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "write_at", full)
    with pytest.raises(OSError, match="space"):
        recover(store.directory)
    monkeypatch.undo()
    store.open()
    store.recover()
    assert store.segments() == {0: A + B + C}


# ---- everything at once


class Killed(BaseException):
    pass


class PowerCuts:
    """Keeps what each file holds on the device; `cut` gives every file some of what was written since.

    A block of 64 bytes that was written and not synced is kept or lost for itself, and a file has any length that it
    had since its last sync.
    """

    BLOCK = 64

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device: dict[str, bytes] = {}
        self._real_sync = disk.sync_data
        self._real_sync_path = disk.sync_path
        monkeypatch.setattr(disk, "sync_data", self._sync)
        monkeypatch.setattr(disk, "sync_path", self._sync_path)

    def _sync(self, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        self.device[path] = Path(path).read_bytes()

    def _sync_path(self, path: Path) -> None:
        if Path(path).is_file():
            self.device[str(path)] = Path(path).read_bytes()

    def note(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self.device.setdefault(str(path), b"")

    def cut(self, paths: Iterable[Path], chance: random.Random) -> None:
        keep = chance.choice((0.0, 0.4, 0.9, 1.0))
        for path in paths:
            before, cache = self.device.get(str(path), b""), path.read_bytes()
            length = chance.choice((len(before), len(cache), chance.randint(*sorted((len(before), len(cache))))))
            after = bytearray(before.ljust(max(length, len(before)), b"\0")[: max(length, len(before))])
            for at in range(0, len(cache), self.BLOCK):
                block = cache[at : at + self.BLOCK]
                if before[at : at + self.BLOCK] != block and chance.random() < keep:
                    after.extend(bytes(max(0, at - len(after))))
                    after[at : at + len(block)] = block
            path.write_bytes(after)
            self.device[str(path)] = bytes(after)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), foreign=st.booleans(), power=st.booleans())
def test_whatever_happens_acknowledged_lines_are_there_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, foreign: bool, power: bool
) -> None:
    """Random commits, killed or cut anywhere, recovered, killed in the recovery at any step and recovered again."""
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        store = Store(tmp_path_factory.mktemp("store"), size=6 << 10)
        cuts = PowerCuts(patch)
        _live(store, cuts, patch, chance, foreign and not power, power)
        store.close()


def _live(
    store: Store, cuts: PowerCuts, patch: pytest.MonkeyPatch, chance: random.Random, foreign: bool, power: bool
) -> None:
    acknowledged: list[bytes] = []
    theirs: list[bytes] = []
    number = 0
    for _ in range(3):
        pending: list[bytes] = []
        for _ in range(chance.randint(1, 8)):
            pending = [envelope(number + i, chance.randint(0, 200)) for i in range(chance.randint(1, 5))]
            number += len(pending)
            die_at = chance.random() < 0.2
            if die_at:
                _kill_at(patch, chance.choice(("frame.written", "frame.synced", "segment.written", "segment.rolled")))
            try:
                store.commit(pending)
            except Killed:
                break
            finally:
                patch.setattr(disk, "step", lambda _name: None)
            acknowledged += pending
            pending = []
            if chance.random() < 0.1:
                store.checkpoint()
        if foreign and chance.random() < 0.5:
            theirs += _append_foreign(store, chance, len(theirs))
        files = [path for path in store.directory.path.rglob("*") if path.is_file()]
        if power:
            cuts.cut(files, chance)
        _recover(store, patch, chance, cuts if power else None)
        _check(store, acknowledged, theirs, pending)
        there = b"".join(store.segments().values())
        acknowledged += [line for line in pending if line in there]


def _kill_at(patch: pytest.MonkeyPatch, wanted: str, count: int = 1) -> None:
    left = count

    def step(name: str) -> None:
        nonlocal left
        if wanted in (name, "*"):
            left -= 1
            if left == 0:
                raise Killed

    patch.setattr(disk, "step", step)


def _append_foreign(store: Store, chance: random.Random, number: int) -> list[bytes]:
    """A Go program opens the directory beside a journal that is live: it appends to the last segment."""
    lines = [envelope(number + i, chance.randint(0, 99), origin="go") for i in range(chance.randint(1, 3))]
    segments = list_segments(store.directory.channel("c"))[0]
    if not segments or (segments[-1].path.stat().st_size and not segments[-1].path.read_bytes().endswith(b"\n")):
        return []
    with segments[-1].path.open("ab") as file:
        file.write(b"".join(lines))
    return lines


def _recover(store: Store, patch: pytest.MonkeyPatch, chance: random.Random, cuts: PowerCuts | None) -> None:
    for _ in range(chance.randint(0, 2)):
        _kill_at(patch, "*", chance.randint(1, 8))
        try:
            free_journal(recover(store.directory))
        except Killed:
            if cuts is not None:
                cuts.cut([path for path in store.directory.path.rglob("*") if path.is_file()], chance)
    patch.setattr(disk, "step", lambda _name: None)
    store.recover()
    store.log()


def _check(store: Store, acknowledged: list[bytes], theirs: list[bytes], pending: list[bytes]) -> None:
    segments = store.segments()
    found = [line + b"\n" for data in segments.values() for line in data.split(b"\n")[:-1]]
    assert all(data.endswith(b"\n") for data in segments.values() if data)
    ours = [line for line in found if line not in theirs]
    assert [line for line in found if line in theirs] == theirs
    # What was under way when it died is there whole or not at all: a frame is.
    assert ours in (acknowledged, acknowledged + pending)
    if not theirs:
        at = 0
        for start, data in sorted(segments.items()):
            assert start == at
            at += len(data)
