"""Data directories for tests: each has its own writer, which is told to leave at the end and has to leave nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from child import eventually, writer_pid

from keyop.ipc.names import PREFIX, DirectoryIdentity

_SHM = Path("/dev/shm")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged goes from one process to another, which half a pair of surrogates cannot."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def objects_of(data_dir: Path) -> list[str]:
    """What stands in /dev/shm for a data directory."""
    key = DirectoryIdentity(data_dir / "run").key
    return sorted(path.name for path in _SHM.glob(f"*{PREFIX[1:]}{key}-*"))


def end_writer(data_dir: Path) -> None:
    """Have the writer of a data directory leave, if one runs, and wait until its lock has fallen."""

    def ended() -> bool:
        pid = writer_pid(data_dir)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        return pid is None

    eventually(ended)


def leave(data_dir: Path) -> None:
    """End the writer and see that nothing of the directory remains in shared memory."""
    if not (data_dir / "run" / "id").exists():
        return
    end_writer(data_dir)
    if _SHM.is_dir():
        assert objects_of(data_dir) == []


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A path for a data directory, which does not exist yet."""
    path = tmp_path / "data"
    yield path
    leave(path)
