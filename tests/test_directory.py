"""Making a data directory: what a power cut leaves of one that was made, at once or in several tries."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyop.errors import DataDirectoryError
from keyop.storage import directory as directory_module
from keyop.storage.directory import DataDirectory


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced, in order."""
    paths: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    return paths


def test_its_names_are_synced_once(tmp_path: Path, synced: list[str]) -> None:
    for _ in range(2):
        DataDirectory(tmp_path / "data").make()
    assert synced == [str(tmp_path / "data"), str(tmp_path)]


def test_they_are_synced_by_who_makes_the_rest(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when it was made the first time, or whoever made it was killed."""
    make = directory_module.make_given_directory

    def full(path: Path) -> None:
        if path.name == "journal":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path)

    monkeypatch.setattr(directory_module, "make_given_directory", full)
    with pytest.raises(DataDirectoryError, match="No space left"):
        DataDirectory(tmp_path / "data").make()
    assert synced == []
    monkeypatch.setattr(directory_module, "make_given_directory", make)
    DataDirectory(tmp_path / "data").make()
    assert synced == [str(tmp_path / "data"), str(tmp_path)]


def test_a_sync_that_fails_is_said_as_an_error_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataDirectoryError, match="Input/output"):
        DataDirectory(tmp_path / "data").make()
    monkeypatch.undo()
    DataDirectory(tmp_path / "data").make()


def test_a_parent_that_may_not_be_listed_is_let_be(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_path = os.open

    def refuse(path: Path, flags: int) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_path(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    DataDirectory(tmp_path / "data").make()
    assert synced == [str(tmp_path / "data")]
