"""Checkpoints: what a journal file says is on the device elsewhere before it is freed, also when a sync fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from test_recovery import A, B, C, Store, envelope

from keyop.storage import disk
from keyop.storage.offset_file import write_offset
from keyop.writer import checkpoint
from keyop.writer.checkpoint import Checkpoint, Checkpointer


class Run:
    """A store, and a checkpointer that works on its journal."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.troubles: list[int] = []
        self.skipped: list[Path] = []
        self.done: list[Checkpoint] = []
        self.again: list[Path] = []
        self.checkpointer = Checkpointer(
            self.store.journal,
            self.done.append,
            self.troubles.append,
            self.again.append,
            lambda path, _error: self.skipped.append(path),
        )

    def checkpoint(self, *files: Path) -> Checkpoint:
        made = Checkpoint(self.store.journal.switch())
        made.segments = set(self.store.dirty)
        made.files = set(files)
        made.directories = {path.parent for path in files}
        self.checkpointer.submit(made)
        assert made.done.wait(10)
        return made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(checkpoint, "_BACKOFF_S", (0.0,))
    made = Run(tmp_path / "data")
    yield made
    made.store.close()


def offset_file(run: Run, id: str = "s") -> Path:
    path = run.store.directory.offset_file("c", id)
    path.parent.mkdir(exist_ok=True)
    write_offset(path, 77)
    return path


def test_segments_then_files_then_directories_then_the_journal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync_data, sync_path = disk.sync_data, disk.sync_path

    def data(fd: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{fd}")).suffix)
        sync_data(fd)

    def path(given: Path) -> None:
        order.append(given.suffix or "directory")
        sync_path(given)

    run.store.commit([A])
    file = offset_file(run)
    monkeypatch.setattr(disk, "sync_data", data)
    monkeypatch.setattr(disk, "sync_path", path)
    run.checkpoint(file)
    assert order == [".jsonl", ".offset", "directory", ".journal"]
    assert run.store.journal.at_rest


def test_after_a_failed_sync_a_segment_is_written_again_from_the_journal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.store.commit([A])
    run.store.commit([B], spill=b"00000000000000ff-1")
    run.store.commit([C])
    path = run.store.path()
    # What a failed writeback may leave in the page cache: an older state, and the pages clean.
    with path.open("r+b") as file:
        file.write(bytes(len(A + B + C)))
    real, failures = disk.sync_data, 2

    def fail(fd: int) -> None:
        nonlocal failures
        if failures and os.readlink(f"/proc/self/fd/{fd}").endswith(".jsonl"):
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(disk, "sync_data", fail)
    run.checkpoint()
    assert path.read_bytes() == A + B + C
    assert run.troubles == [errno.EIO, errno.EIO, 0]
    assert run.store.journal.at_rest


def test_after_a_failed_sync_another_programs_lines_stay(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They came between the frame and the look at the segment's length; the writer is about to leave."""
    run.store.commit([A])
    path = run.store.path()
    theirs = envelope(1, origin="go")
    with path.open("ab") as file:
        file.write(theirs)
    run.store.commit([B, C], apply=False)
    real, failures = disk.sync_data, 1

    def fail(fd: int) -> None:
        nonlocal failures
        if failures and os.readlink(f"/proc/self/fd/{fd}").endswith(".jsonl"):
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(disk, "sync_data", fail)
    run.checkpoint()
    assert path.read_bytes() == A + theirs


def test_an_offset_file_is_written_again_and_one_that_is_gone_is_let_be(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.store.commit([A])
    stays, goes = offset_file(run), offset_file(run, "t")
    real, failures = disk.sync_path, {stays: 1, goes: 1}

    def fail(path: Path) -> None:
        if failures.get(path, 0):
            failures[path] -= 1
            goes.unlink(missing_ok=True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path)

    monkeypatch.setattr(disk, "sync_path", fail)
    run.checkpoint(stays, goes)
    assert run.store.journal.at_rest
    assert sorted(run.again) == [stays, goes]


def test_a_file_that_nobody_may_read_does_not_keep_the_journal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.store.commit([A])
    file = offset_file(run)
    real = disk.sync_path

    def refuse(path: Path) -> None:
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(path)

    monkeypatch.setattr(disk, "sync_path", refuse)
    run.checkpoint(file)
    assert run.skipped == [file]
    assert run.store.journal.at_rest


def test_one_that_frees_no_file_only_syncs_and_comes_behind_those_before_it(run: Run) -> None:
    run.store.commit([A])
    order: list[str] = []
    first = Checkpoint(run.store.journal.switch())
    first.then = [lambda: order.append("first")]
    second = Checkpoint(None)
    second.then = [lambda: order.append("second")]
    run.store.journal.write([])
    for each in (first, second):
        run.checkpointer.submit(each)
    eventually(lambda: len(run.done) == 2)
    assert order == ["first", "second"]
    assert run.store.journal.in_use
    run.store.journal.switch()
    run.store.journal.free(1)
