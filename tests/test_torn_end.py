"""What ends in the middle: a line at the end of a channel, a frame at the end of the journal. Both are said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import end_writer
from inbox import Inbox
from test_recovery import Store, envelope, put
from writers import Writer

from keyop import Messenger
from keyop.inspection.verification import verify
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.file_system import FileSystem
from keyop.storage.journal import NAMES
from keyop.storage.offsets import read_offset
from keyop.storage.recovery import recover
from keyop.storage.segments import segment_name

A, B, C = (envelope(number) for number in range(3))


def test_what_follows_a_damaged_end_reaches_those_who_had_read_beyond_it(data_dir: Path) -> None:
    """The last newline is another byte now. The writer cuts that line; a subscriber's offset lies behind it, and where
    the channel has grown past that offset again nobody would see that it jumps over new messages."""
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest")
        m.publish("c", "first", payload_type="t")
        m.publish("c", "x" * 500, payload_type="t")
        assert inbox.take(2) == ["first", "x" * 500]
    segment = DataDirectory(data_dir).channel("c") / segment_name(0)
    size = segment.stat().st_size
    end_writer(data_dir)
    put(segment, size - 1, b"\x0b")
    assert [problem.kind for problem in verify(data_dir).problems] == ["torn", "offset"]
    with Writer(data_dir) as writer:
        with Messenger(data_dir) as m:
            for number in range(6):
                m.publish("c", number, payload_type="t")
            assert segment.stat().st_size > size
            inbox = Inbox()
            m.subscribe("c", "s", inbox)
            assert inbox.take(6) == list(range(6))
        assert writer.said("torn_line_cut")
        assert writer.said("offset_moved")
    offset = read_offset(DataDirectory(data_dir).offset_file("c", "s"))
    assert offset is not None
    assert offset.value == segment.stat().st_size


@pytest.mark.parametrize("at", [3, 12, 30, 100])
def test_a_damaged_last_frame_is_told(tmp_path: Path, at: int) -> None:
    """In its salt, its number, its CRC, its lines: nothing proves that it was ever synced."""
    store = Store(tmp_path / "data")
    store.commit([A])
    store.commit([B], apply=False)
    store.close()
    path = store.directory.journal / NAMES[0]
    data = path.read_bytes()
    frame_at = data.index(B) // 64 * 64 - (0 if data.index(B) % 64 >= 40 else 64)
    put(path, frame_at + at, bytes([data[frame_at + at] ^ 4]))
    found = recover(store.directory)
    assert (found.frames, found.notes) == (1, [])
    assert found.torn == "journal frame 2, the last one, is torn or damaged and does not count"
    assert next(finding.text for finding in verify(store.directory.path).notes) == found.torn
    store.open()
    store.close()


def test_where_nothing_was_begun_nothing_is_told(tmp_path: Path) -> None:
    """Also where the file holds frames of an earlier use."""
    store = Store(tmp_path / "data")
    for line in (A, B, C):
        store.commit([line])
    store.checkpoint()
    store.commit([envelope(4)])
    store.checkpoint()
    store.commit([envelope(5)])
    store.close()
    found = recover(store.directory)
    assert (found.frames, found.notes, found.torn) == (1, [], "")


def test_what_stands_in_a_segment_already_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing disk may have dropped it: what is read then is the memory of what was never written."""
    store = Store(tmp_path / "data")
    store.commit([A, B])
    store.close()
    written = []
    real = disk.write_at

    def note(fd: int, data: bytes, position: int) -> None:
        written.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, bytes(data)))
        real(fd, data, position)

    monkeypatch.setattr(disk, "write_at", note)
    recover(store.directory)
    assert [item for item in written if item[0] not in NAMES] == [(segment_name(0), A + B)]


def test_many_files_are_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.make()
    files = [directory.channels / f"{number}.jsonl" for number in range(100)]
    for path in files:
        path.write_bytes(b"x")
    synced: list[Path] = []
    monkeypatch.setattr(DataDirectory, "file_system", lambda _self: "ext4")
    system = FileSystem(directory)
    system.sync(files, synced.append)
    assert synced == files[:1]
    system.sync(files[:5], synced.append)
    assert synced[1:] == files[:5]
    monkeypatch.setattr(DataDirectory, "file_system", lambda _self: "fuse")
    synced.clear()
    system.sync(files, synced.append)
    assert synced == files
    system.close()


def test_empty_segments_behind_a_torn_end_go_with_it(tmp_path: Path) -> None:
    """A power cut in periodic mode: the last frames were not synced. Of what was appended the file system has kept the
    length, and the next segment had been made. Left so, readers would wait before the zeros for ever."""
    store = Store(tmp_path / "data")
    store.commit([A, B])
    store.close()
    end = len(A + B)
    put(store.path(), end, bytes(300))
    for start in (end + 300, end + 900):
        store.path(start).touch()
    found = recover(store.directory)
    assert found.notes == [f"{store.path()}: 300 bytes at {end} were cut, the torn rest of a last line"]
    assert found.ends == {b"c": end}
    assert found.cap(b"c", end + 300) == end
    assert store.segments() == {0: A + B}


def test_so_do_segments_that_are_torn_as_a_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.commit([A, B])
    store.close()
    end = len(A + B)
    put(store.path(), end, bytes(300))
    store.path(end + 300).write_bytes(bytes(700))
    store.path(end + 1000).touch()
    found = recover(store.directory)
    assert len(found.notes) == 2
    assert found.ends == {b"c": end}
    assert store.segments() == {0: A + B}


def test_a_channel_that_the_journal_does_not_name_is_cut_when_it_is_opened(tmp_path: Path) -> None:
    """The journal's file had been freed, and the next frame was lost."""
    store = Store(tmp_path / "data")
    store.commit([A, B])
    store.checkpoint()
    store.close()
    end = len(A + B)
    put(store.path(), end, bytes(300))
    store.path(end + 300).touch()
    assert recover(store.directory).clean
    store.open()
    assert [str(cut) for cut in store.log().cuts] == [
        f"{store.path()}: 300 bytes at {end} were cut, the torn rest of a last line"
    ]
    assert store.log().end == end
    assert store.segments() == {0: A + B}
    store.close()
