"""The commit journal: frames, two files in turn, what a torn end is, and a disk that fails."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyop.protocol import entry
from keyop.storage import disk, frame, journal
from keyop.storage.journal import NAMES, Journal
from keyop.storage.journal_file import (
    FIRST_FRAME_BYTES,
    SECTOR_BYTES,
    JournalContents,
    JournalFile,
    header,
    parse_header,
)
from keyop.storage.recovery import Recovered, whole_run

SALT = 0x0123_4567_89AB_CDEF
SIZE = 64 << 10


def append(channel: bytes, offset: int, data: bytes) -> bytes:
    return entry.encode(entry.APPEND, channel, value=offset, data=data)


def entries_of(number: int) -> list[bytes]:
    return [append(b"c", number * 10, b"%9d\n" % number)]


def make(directory: Path, size: int = SIZE) -> tuple[Journal, list[int]]:
    troubles: list[int] = []
    return Journal(directory, size, troubles.append), troubles


def live(directory: Path) -> list[JournalContents]:
    files = [JournalContents(directory / name) for name in NAMES]
    return sorted((file for file in files if file.live), key=lambda file: file.first_sequence)


def sequences(directory: Path) -> tuple[list[int], list[str]]:
    """The frames that count, by number, and what is reported as lost."""
    result = Recovered()
    found = live(directory)
    return ([item.sequence for item in whole_run(found, result)] if found else []), result.notes


# ---- frames


def test_a_frame_is_read_back_and_padded_to_64_bytes() -> None:
    entries = [append(b"orders", 7, b"{}\n"), entry.encode(entry.RING, value=9, data=entry.POSITION.pack(5))]
    data = frame.compose(SALT, 12, 11, entries)
    assert len(data) % frame.ALIGNMENT_BYTES == 0
    found = frame.parse(bytes(64) + data, 64, SALT)
    assert found is not None
    assert (found.sequence, found.synced) == (12, 11)
    assert [(item.kind, item.channel, item.value) for item in found.entries()] == [
        (entry.APPEND, b"orders", 7),
        (entry.RING, b"", 9),
    ]


def test_a_flipped_bit_anywhere_makes_it_no_frame() -> None:
    data = frame.compose(SALT, 1, 0, entries_of(1))
    length = frame.HEADER_BYTES + len(entries_of(1)[0])
    unused = range(frame.HEADER_BYTES - 4, frame.HEADER_BYTES)
    for at in range(length):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        assert (frame.parse(damaged, 0, SALT) is None) == (at not in unused), at


def test_another_salt_a_cut_and_a_wrong_count_are_no_frame() -> None:
    data = frame.compose(SALT, 1, 0, entries_of(1))
    assert frame.parse(data, 0, SALT + 1) is None
    assert frame.parse(data[:-64], 0, SALT) is None
    assert frame.parse(data[:20], 0, SALT) is None
    assert frame.parse(frame.compose(SALT, 1, 0, [entries_of(1)[0] + entries_of(2)[0]]), 0, SALT) is None


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=300)),
        max_size=6,
    ),
    st.integers(1, 2**64 - 1),
)
def test_any_entries_come_back(items: list[tuple[int, bytes, bytes, bytes]], salt: int) -> None:
    packed = [entry.encode(kind, channel, id, value=3, data=data) for kind, channel, id, data in items]
    found = frame.parse(frame.compose(salt, 5, 4, packed), 0, salt)
    assert found is not None
    assert [(item.kind, item.channel, item.id, item.data) for item in found.entries()] == items


# ---- files


def test_either_copy_of_the_header_is_enough() -> None:
    both = header(SALT, 3)
    for at in (0, SECTOR_BYTES):
        damaged = bytearray(both)
        damaged[at : at + SECTOR_BYTES] = os.urandom(SECTOR_BYTES)
        assert parse_header(bytes(damaged)) == (SALT, 3)
    assert parse_header(bytes(2 * SECTOR_BYTES)) is None
    assert parse_header(b"") is None


def test_a_new_journal_is_two_zero_filled_files_that_are_free(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == bytes(SIZE)
        assert (tmp_path / name).stat().st_blocks * 512 >= SIZE
    assert made.at_rest
    made.close()


def test_a_sparse_file_is_filled_again(tmp_path: Path) -> None:
    for name in NAMES:
        with (tmp_path / name).open("wb") as file:
            file.truncate(SIZE)
    Journal.prepare(tmp_path, SIZE)
    for name in NAMES:
        assert (tmp_path / name).stat().st_blocks * 512 >= SIZE


def test_frames_are_read_back_in_order_and_the_header_comes_with_the_first(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    for number in (1, 2, 3):
        made.write(entries_of(number))
    made.sync()
    assert sequences(tmp_path) == ([1, 2, 3], [])
    assert not made.at_rest
    assert made.in_use
    made.close()


def test_frames_of_the_last_use_do_not_count(tmp_path: Path) -> None:
    """The second use is shorter: behind it stand whole frames of the first, with the very numbers that come next."""
    made, _ = make(tmp_path)
    for number in range(1, 9):
        made.write(entries_of(number))
    made.free(made.current)
    made.close()
    again, _ = make(tmp_path)
    again.write(entries_of(1))
    assert sequences(tmp_path) == ([1], [])
    again.close()


def test_files_take_turns_and_are_ordered_by_number(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    made.write(entries_of(1))
    assert made.switch() == 0
    made.write(entries_of(2))
    assert not made.wait_free(0)
    assert sequences(tmp_path) == ([1, 2], [])
    made.free(0)
    assert made.wait_free(0)
    assert sequences(tmp_path) == ([2], [])
    made.switch()
    made.write(entries_of(3))
    assert sequences(tmp_path) == ([2, 3], [])
    assert made.current == 0
    made.close()


def test_the_file_that_is_left_is_synced_before_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = make(tmp_path)
    calls: list[str] = []
    sync, write = disk.sync_data, disk.write_at
    monkeypatch.setattr(disk, "sync_data", lambda fd: (calls.append("sync"), sync(fd))[1])
    monkeypatch.setattr(disk, "write_at", lambda *given: (calls.append("write"), write(*given))[1])
    made.write(entries_of(1))
    made.switch()
    made.write(entries_of(2))
    assert calls == ["write", "sync", "write"]
    made.close()


def test_what_does_not_fit_is_told_before_and_room_is_made_in_a_free_file(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    large = [append(b"c", 0, b"x" * SIZE + b"\n")]
    length = len(large[0])
    assert not made.fits(length)
    made.make_room(length)
    assert made.fits(length)
    made.write(large)
    assert (tmp_path / NAMES[0]).stat().st_size == FIRST_FRAME_BYTES + frame.padded(length + frame.HEADER_BYTES)
    assert sequences(tmp_path) == ([1], [])
    made.close()


def test_no_frame_is_ever_written_beyond_the_file(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    data = [append(b"c", 0, b"x" * 5000 + b"\n")]
    while made.fits(len(data[0])):
        made.write(data)
    assert [(tmp_path / name).stat().st_size for name in NAMES] == [SIZE, SIZE]
    made.close()


def test_it_grows_when_it_fills_fast_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FIRST_SIZE_BYTES", SIZE)
    made, _ = make(tmp_path, 3 * SIZE)
    for expected in (2 * SIZE, 3 * SIZE, 3 * SIZE):
        made.write(entries_of(1))
        assert made.filled_fast()
        left = made.switch()
        made.free(left, grow=True)
        assert (tmp_path / NAMES[left]).stat().st_size == expected
        made.switch()
    made.close()


def test_growing_on_a_full_disk_gives_the_blocks_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FIRST_SIZE_BYTES", SIZE)
    made, _ = make(tmp_path, 4 * SIZE)

    def full(fd: int, start: int, end: int) -> None:
        os.pwrite(fd, bytes(4096), start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "fill_zeros", full)
    made.write(entries_of(1))
    left = made.switch()
    made.free(left, grow=True)
    assert made.wait_free(0)
    assert (tmp_path / NAMES[left]).stat().st_size == SIZE
    made.close()


# ---- what counts after a crash


def written(directory: Path, synced_at: tuple[int, ...], frames: int = 6) -> list[int]:
    """A journal of some frames, synced after some; where each begins."""
    made, _ = make(directory)
    places = []
    at = FIRST_FRAME_BYTES
    for number in range(1, frames + 1):
        places.append(at)
        made.write(entries_of(number))
        at += frame.padded(frame.HEADER_BYTES + len(entries_of(number)[0]))
        if number in synced_at:
            made.sync()
    made.close()
    return [*places, at]


def test_a_torn_end_at_every_byte_of_the_last_frame(tmp_path: Path) -> None:
    places = written(tmp_path, ())
    path = tmp_path / NAMES[0]
    whole = path.read_bytes()
    begin, end = places[5], places[5] + frame.HEADER_BYTES + len(entries_of(6)[0])
    for cut in range(begin, end):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        kept = [1, 2, 3, 4, 5]
        # The last bytes of an entry may be zeros themselves; here they are a newline.
        assert sequences(tmp_path) == (kept, []), cut


def test_a_hole_that_was_not_synced_is_the_torn_end(tmp_path: Path) -> None:
    places = written(tmp_path, ())
    path = tmp_path / NAMES[0]
    data = bytearray(path.read_bytes())
    data[places[2] : places[3]] = bytes(places[3] - places[2])
    path.write_bytes(data)
    assert sequences(tmp_path) == ([1, 2], [])


def test_a_hole_that_a_later_frame_proves_synced_is_lost_alone_and_reported(tmp_path: Path) -> None:
    places = written(tmp_path, (4,))
    path = tmp_path / NAMES[0]
    data = bytearray(path.read_bytes())
    data[places[1] : places[3]] = bytes(places[3] - places[1])
    path.write_bytes(data)
    assert sequences(tmp_path) == ([1, 4, 5, 6], ["journal frames 2 to 3 are damaged and lost"])


def test_a_hole_that_is_proven_in_part_ends_the_run(tmp_path: Path) -> None:
    places = written(tmp_path, (3,))
    path = tmp_path / NAMES[0]
    data = bytearray(path.read_bytes())
    data[places[2] : places[5]] = bytes(places[5] - places[2])
    path.write_bytes(data)
    assert sequences(tmp_path) == ([1, 2], ["journal frames 3 to 3 are damaged and lost"])


def test_holes_between_the_files(tmp_path: Path) -> None:
    made, _ = make(tmp_path)
    for number in (1, 2):
        made.write(entries_of(number))
    made.switch()
    for number in (3, 4):
        made.write(entries_of(number))
    made.close()
    old = tmp_path / NAMES[0]
    data = bytearray(old.read_bytes())
    second = FIRST_FRAME_BYTES + frame.padded(frame.HEADER_BYTES + len(entries_of(1)[0]))
    data[second : second + 16] = bytes(16)
    old.write_bytes(data)
    # Frame 3 says that 2 had been synced, as the switch does.
    assert sequences(tmp_path) == ([1, 3, 4], ["journal frames 2 to 2 are damaged and lost"])
    new = tmp_path / NAMES[1]
    data = bytearray(new.read_bytes())
    data[FIRST_FRAME_BYTES : FIRST_FRAME_BYTES + 64] = bytes(64)
    new.write_bytes(data)
    # Now 4 says so of 2, but 3 itself was never synced.
    assert sequences(tmp_path) == ([1], ["journal frames 2 to 2 are damaged and lost"])


def test_a_header_without_a_frame_is_an_empty_journal(tmp_path: Path) -> None:
    make(tmp_path)[0].close()
    path = tmp_path / NAMES[0]
    path.write_bytes(header(SALT, 1) + bytes(SIZE))
    assert JournalContents(path).live
    assert sequences(tmp_path) == ([], [])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12),
    synced=st.sets(st.integers(1, 12)),
    damage=st.lists(st.integers(0, 11), max_size=4),
)
def test_what_counts_is_a_run_that_lacks_only_what_is_reported(
    tmp_path: Path, sizes: list[int], synced: set[int], damage: list[int]
) -> None:
    for name in NAMES:
        (tmp_path / name).unlink(missing_ok=True)
    made, _ = make(tmp_path)
    places = []
    at = FIRST_FRAME_BYTES
    for number, size in enumerate(sizes, 1):
        body = [append(b"c", 0, b"x" * size + b"\n")]
        made.write(body)
        places.append(at)
        at += frame.padded(frame.HEADER_BYTES + len(body[0]))
        if number in synced:
            made.sync()
    made.close()
    path = tmp_path / NAMES[0]
    data = bytearray(path.read_bytes())
    damaged = {index for index in damage if index < len(places)}
    for index in damaged:
        data[places[index] + 30] ^= 0xFF
    path.write_bytes(data)
    found, notes = sequences(tmp_path)
    intact = [number for number in range(1, len(sizes) + 1) if number - 1 not in damaged]
    assert found == intact[: len(found)]
    last_proof = max((max((s for s in synced if s < number), default=0) for number in intact), default=0)
    assert set(intact) - set(found) <= {number for number in intact if number > last_proof}
    lost = [number for number in range(1, last_proof + 1) if number - 1 in damaged]
    reported = [range(int(note.split()[2]), int(note.split()[4]) + 1) for note in notes]
    assert sorted(number for span in reported for number in span) == lost


# ---- a disk that fails


class Failing:
    """Makes a function of `disk` fail some times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, times: int) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.left = times
        self._code = code
        self._real: Callable[..., object] = getattr(disk, name)
        monkeypatch.setattr(disk, name, self)
        monkeypatch.setattr(journal, "_BACKOFF_S", (0.0,))

    def __call__(self, *given: object) -> object:
        self.calls.append(given)
        if self.left > 0:
            self.left -= 1
            raise OSError(self._code, os.strerror(self._code))
        return self._real(*given)


def test_a_write_that_fails_is_tried_until_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, troubles = make(tmp_path)
    failing = Failing(monkeypatch, "write_at", errno.ENOSPC, 3)
    made.write(entries_of(1))
    assert troubles == [errno.ENOSPC] * 3 + [0]
    assert len({call[1:] for call in failing.calls}) == 1, "the same bytes to the same place"
    assert sequences(tmp_path) == ([1], [])
    made.close()


def test_after_a_failed_sync_the_same_bytes_go_to_the_same_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, troubles = make(tmp_path)
    made.write(entries_of(1))
    made.sync()
    for number in (2, 3):
        made.write(entries_of(number))
    before = (tmp_path / NAMES[0]).read_bytes()
    # What the kernel does after a failed writeback: the pages are clean, and hold what it likes.
    with (tmp_path / NAMES[0]).open("r+b") as file:
        file.seek(FIRST_FRAME_BYTES + frame.padded(frame.HEADER_BYTES + len(entries_of(1)[0])))
        file.write(bytes(256))
    Failing(monkeypatch, "sync_data", errno.EIO, 2)
    made.sync()
    assert troubles == [errno.EIO, errno.EIO, 0]
    assert (tmp_path / NAMES[0]).read_bytes() == before
    assert sequences(tmp_path) == ([1, 2, 3], [])
    made.write(entries_of(4))
    assert live(tmp_path)[0].frames[-1].synced == 3
    made.close()


def test_a_frame_is_not_called_synced_by_a_sync_that_ran_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a hole there would be taken for damage, and what follows it for committed."""
    made, _ = make(tmp_path)
    made.write(entries_of(1))
    writing, go_on = threading.Event(), threading.Event()
    write = disk.write_at

    def slow(fd: int, data: bytes, position: int) -> None:
        writing.set()
        assert go_on.wait(10)
        write(fd, data, position)

    monkeypatch.setattr(disk, "write_at", slow)
    writer = threading.Thread(target=made.write, args=(entries_of(2),))
    writer.start()
    assert writing.wait(10)
    syncer = threading.Thread(target=made.sync)
    syncer.start()
    go_on.set()
    writer.join()
    syncer.join()
    made.write(entries_of(3))
    frames = live(tmp_path)[0].frames
    assert frames[1].synced == 0
    assert frames[2].synced in (1, 2)
    made.close()


def test_what_is_not_synced_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_UNSYNCED_BYTES", 1000)
    made, _ = make(tmp_path)
    for number in range(1, 30):
        made.write(entries_of(number))
    length = frame.padded(frame.HEADER_BYTES + len(entries_of(1)[0]))
    assert made.syncs >= 29 * length // (1000 + FIRST_FRAME_BYTES + length)
    made.close()


def test_a_file_that_cannot_be_freed_stays_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = make(tmp_path)
    made.write(entries_of(1))
    left = made.switch()
    Failing(monkeypatch, "sync_data", errno.EIO, 1)
    with pytest.raises(OSError, match="Input/output"):
        made.free(left)
    assert not made.wait_free(0)
    made.free(left)
    assert made.wait_free(0)
    assert made.at_rest
    made.close()


def test_opening_needs_room_for_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, start: int, end: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fill = disk.fill_zeros
    monkeypatch.setattr(disk, "fill_zeros", full)
    with pytest.raises(OSError, match="space"):
        Journal.prepare(tmp_path, SIZE)
    monkeypatch.setattr(disk, "fill_zeros", fill)
    Journal.prepare(tmp_path, SIZE)
    file = JournalFile(tmp_path / NAMES[1], SIZE)
    assert file.size == SIZE
    file.close()
