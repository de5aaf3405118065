"""The writer's offset files: what is written again after a failed sync, and which names have to be synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import parse_offset, read_offset
from keyop.storage.recovery import Recovered, RecoveredCursor
from keyop.writer.cursor import Subscriber
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.spill import Spills
from keyop.writer.start import finish_recovery

KEY = (b"c", b"s")


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.make()
    return made


@pytest.fixture
def cursors(directory: DataDirectory) -> Cursors:
    return Cursors(directory, Log(sink=lambda _line: None))


def filed(cursors: Cursors, offset: int) -> Subscriber:
    subscriber = cursors.add(KEY, [offset])
    cursors.unfiled.add(subscriber)
    assert cursors.file() is None
    return subscriber


def value(path: Path) -> int | None:
    found = read_offset(path)
    return None if found is None else found.value


def test_what_another_program_has_written_is_replaced_by_what_is_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut might leave an empty file: the offset would count as 0, and an exactly-once chain not start."""
    path = tmp_path / "s.offset"
    path.write_bytes(b"12345")
    order: list[str] = []
    sync_data, rename = disk.sync_data, disk.rename
    monkeypatch.setattr(disk, "sync_data", lambda fd: (order.append("sync"), sync_data(fd)))
    monkeypatch.setattr(disk, "rename", lambda old, new: (order.append("rename"), rename(old, new)))
    write_offset(path, 99)
    assert (order, parse_offset(path.read_bytes()).value) == (["sync", "rename"], 99)
    write_offset(path, 100)
    write_offset(tmp_path / "new.offset", 1)
    assert order == ["sync", "rename", "rename"]


def test_a_file_is_written_again_from_memory_not_from_what_it_reads_as(cursors: Cursors) -> None:
    """The kernel has dropped what a failed sync should have written: the file reads as the device has it."""
    subscriber = filed(cursors, 700)
    write_offset(subscriber.path, 100)
    cursors.write_again(subscriber.path)
    assert value(subscriber.path) == 700


def test_one_that_was_forgotten_is_not_written_again(cursors: Cursors) -> None:
    subscriber = filed(cursors, 700)
    cursors.forget(subscriber)
    cursors.write_again(subscriber.path)
    assert not subscriber.path.exists()


def test_one_that_cannot_be_removed_yet_is_removed_before_anybody_has_that_id_again(
    cursors: Cursors, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = filed(cursors, 700)

    def refuse(_path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "unlink", refuse)
    cursors.forget(subscriber)
    trouble = cursors.file()
    assert trouble is not None
    assert trouble.errno == errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        cursors.remove_forgotten()
    monkeypatch.undo()
    assert cursors.file() is None
    assert not subscriber.path.exists()


def test_attempts_are_written_again_from_memory(cursors: Cursors, directory: DataDirectory) -> None:
    filed(cursors, 700).cursors[0].attempts = 2
    cursors.file_attempts()
    path = directory.run / "attempts"
    noted = path.read_bytes()
    path.write_bytes(b"")
    cursors.write_again(path)
    assert path.read_bytes() == noted != b""


def test_names_are_synced_though_they_are_there(cursors: Cursors, directory: DataDirectory) -> None:
    """The writer that made them may have been killed before it synced them."""
    path = directory.offset_file("c", "s")
    path.parent.mkdir()
    write_offset(path, 100)
    filed(cursors, 700)
    assert cursors.unsynced_directories == {path.parent, directory.subscribers}


def test_a_recovery_whose_sync_failed_writes_the_offsets_again(
    cursors: Cursors, directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovered = Recovered()
    recovered.clean = False
    subscriber = cursors.restore(KEY, [RecoveredCursor(3, 700, 700, 0, 0)])
    real, failures = disk.sync_path, 1

    def fail(path: Path) -> None:
        nonlocal failures
        if path == subscriber.path and failures:
            failures -= 1
            write_offset(path, 100)  # what the device has; from here on the pages count as clean
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path)

    monkeypatch.setattr(disk, "sync_path", fail)
    with pytest.raises(OSError, match="Input/output"):
        finish_recovery(directory, recovered, cursors, Spills(directory.spill))
    finish_recovery(directory, recovered, cursors, Spills(directory.spill))
    assert value(subscriber.path) == 700
