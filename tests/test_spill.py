"""Transactions that are too large for the ring: their files, and when these go."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from zlib import crc32

import pytest
from child import Child, eventually, kill_writer
from writers import TINY, Writer

from keyop import Messenger
from keyop.attachment import spilling
from keyop.protocol import entry, reply
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments
from keyop.writer.refused import Full, Refused, Wait
from keyop.writer.spill import MAX_BYTES, Spill, Spills

RING = 0xAB


def record(data: bytes, name: bytes = b"00000000000000ab-1") -> bytes:
    return entry.SPILL_RECORD.pack(len(data), crc32(data)) + name


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "spill"
    path.mkdir()
    return path


def test_a_file_is_read_whole(directory: Path) -> None:
    reference = spilling.write_spill(directory / "00000000000000ab-1", b"entries")
    assert Spills(directory).load(reference, MAX_BYTES).data == b"entries"


@pytest.mark.parametrize("name", [b"", b"../x", b"a/b", b".hidden", b"a\0b"])
def test_names_that_are_paths_are_refused(directory: Path, name: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Spills(directory).load(record(b"x", name), MAX_BYTES)
    assert refused.value.code == reply.MALFORMED


def test_what_is_missing_or_damaged_is_refused_and_what_cannot_be_read_now_waits(directory: Path) -> None:
    spills = Spills(directory)
    for content in (None, b"entriez", b"entries and more", b""):
        path = directory / "00000000000000ab-1"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Refused) as refused:
            spills.load(record(b"entries"), MAX_BYTES)
        assert refused.value.code == reply.SPILL_DAMAGED
    path.unlink()
    path.mkdir()
    with pytest.raises(Wait):
        spills.load(record(b"entries"), MAX_BYTES)
    with pytest.raises(Refused):
        spills.load(b"short", MAX_BYTES)


def test_memory_is_bounded(directory: Path) -> None:
    spills = Spills(directory)
    reference = spilling.write_spill(directory / "00000000000000ab-1", b"entries")
    with pytest.raises(Full):
        spills.load(reference, 6)
    with pytest.raises(Refused):
        spills.load(entry.SPILL_RECORD.pack(MAX_BYTES + 1, 0) + b"00000000000000ab-1", MAX_BYTES)


def test_what_no_frame_names_goes_with_its_process(directory: Path) -> None:
    spills = Spills(directory)
    for name in ("00000000000000ab-1", "00000000000000ab-2", "00000000000000ac-1"):
        (directory / name).write_bytes(b"")
    spills.name([Spill(b"00000000000000ab-1", b"")])
    spills.bury(RING)
    assert sorted(os.listdir(directory)) == ["00000000000000ab-1", "00000000000000ac-1"]
    spills.remove({b"00000000000000ab-1"})
    assert os.listdir(directory) == ["00000000000000ac-1"]


def test_a_start_keeps_what_belongs_to_a_ring_that_exists(directory: Path) -> None:
    for name in ("00000000000000ab-1", "00000000000000ac-1", "notes.txt"):
        (directory / name).write_bytes(b"")
    Spills(directory).sweep({RING})
    assert os.listdir(directory) == ["00000000000000ab-1"]


def test_a_full_disk_is_waited_for_by_the_publisher(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "_BACKOFF_S", 0.0)
    write = disk.write_at
    failures = 3

    def full(fd: int, data: bytes, position: int) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            os.pwrite(fd, data[:2], position)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(fd, data, position)

    monkeypatch.setattr(disk, "write_at", full)
    reference = spilling.write_spill(directory / "00000000000000ab-1", b"entries")
    assert Spills(directory).load(reference, MAX_BYTES).data == b"entries"


def test_a_read_only_disk_is_waited_for_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the remains cannot be removed."""
    monkeypatch.setattr(spilling, "_BACKOFF_S", 0.0)
    failures = 3

    def refuse(*_arguments: object, **_more: object) -> int:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        monkeypatch.undo()
        return os.open(directory / "00000000000000ab-1", os.O_WRONLY | os.O_CREAT)

    monkeypatch.setattr(spilling, "open_given", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    reference = spilling.write_spill(directory / "00000000000000ab-1", b"entries")
    assert Spills(directory).load(reference, MAX_BYTES).data == b"entries"


def test_what_cannot_be_removed_is_removed_later(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spills = Spills(directory)
    for name in ("00000000000000ab-1", "00000000000000ab-2"):
        (directory / name).write_bytes(b"")

    def refuse(_path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "unlink", refuse)
    spills.remove({b"00000000000000ab-1"})
    monkeypatch.undo()
    spills.remove({b"00000000000000ab-2"})
    assert os.listdir(directory) == []


# ---- with a writer


def contents(data_dir: Path, channel: str) -> bytes:
    return b"".join(at.path.read_bytes() for at in list_segments(DataDirectory(data_dir).channel(channel))[0])


def test_large_batches_over_several_channels_and_many_segments(data_dir: Path) -> None:
    """Their frames are larger than the journal's files, which grow for them; the segments are of 4 KiB."""
    with Writer(data_dir, **TINY), Messenger(data_dir) as m:
        for _ in range(2):
            with m.atomic() as tx:
                for number in range(900):
                    tx.publish(f"c{number % 3}", {"n": number, "pad": "x" * 400}, payload_type="t")
        m.publish("c0", {"n": "last"}, payload_type="t")
        m.publish_batch("bulk", [{"pad": "y" * 3000}] * 200, payload_type="t")
    for channel in ("c1", "c2"):
        assert contents(data_dir, channel).count(b"\n") == 600
        assert len(list_segments(DataDirectory(data_dir).channel(channel))[0]) > 50
    assert contents(data_dir, "c0").endswith(b'{"n":"last"}}\n')
    assert contents(data_dir, "bulk").count(b"\n") == 200
    assert os.listdir(DataDirectory(data_dir).spill) == []


@pytest.mark.parametrize("step", ["frame.written:1", "frame.synced:1", "segment.written:2", "applied:1"])
def test_a_spilled_batch_survives_the_writer(data_dir: Path, step: str) -> None:
    with Writer(data_dir, env={"KEYOP_CRASH_AT": step}, on_demand=True, **TINY) as first, Messenger(data_dir) as m:
        m.publish_batch("c", [{"n": number, "pad": "x" * 700} for number in range(400)], payload_type="t")
        first.end()
        m.publish("c", {"n": "last"}, payload_type="t")
        spill = DataDirectory(data_dir).spill
        assert contents(data_dir, "c").count(b"\n") == 401
        kill_writer(data_dir)
        m.publish("c", {"n": "again"}, payload_type="t")
        assert contents(data_dir, "c").count(b"\n") == 402
        assert os.listdir(spill) == []


def test_the_file_of_a_publisher_that_died_before_it_handed_it_over_goes(data_dir: Path) -> None:
    source = """
    import keyop.attachment.attachment as attachment
    write = attachment.write_spill
    def write_and_die(*given):
        write(*given)
        os.kill(os.getpid(), 9)
    attachment.write_spill = write_and_die
    with Messenger(data_dir) as m:
        m.publish_batch("c", [{"pad": "x" * 1000}] * 300, payload_type="t")
    """
    with Messenger(data_dir) as m:
        m.publish("c", {}, payload_type="t")
        with Child(source, data_dir) as child:
            assert child.end() == -9
        eventually(lambda: not os.listdir(DataDirectory(data_dir).spill))
        assert contents(data_dir, "c").count(b"\n") == 1
