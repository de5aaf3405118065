"""The pytest plugin, found by pytest itself: fixtures with a real messenger in a directory of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from keyop.messages.message import Message
    from keyop.messenger import Messenger

_LEAVE_TIMEOUT_S = 20.0
_LOOK_S = 0.005

Published = Callable[..., "list[Message[Any]]"]


@pytest.fixture
def keyop_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory for one test. Its writer is told to leave at the end, so that nothing stays in shared memory.

    Programs that the test starts can use it as well, before and after ``keyop_messenger`` does.
    """
    path = tmp_path_factory.mktemp("keyop") / "data"
    yield path
    _end_writer(path)


@pytest.fixture
def keyop_messenger(keyop_data_dir: Path) -> Iterator[Messenger]:
    """A real `keyop.Messenger` in ``keyop_data_dir``, with a writer process of its own."""
    from keyop.messenger import Messenger

    with Messenger(keyop_data_dir) as messenger:
        yield messenger


@pytest.fixture
def published(keyop_data_dir: Path) -> Published:
    """``published(channel, count=0, timeout=10)``: the messages that are in a channel of ``keyop_data_dir``, in order.

    Waits until there are ``count`` of them, for at most ``timeout`` seconds; the assertion is the test's. Payloads are
    plain JSON. Dead letters are in ``CHANNEL.dead-letter``.
    """
    from keyop.inspection.following import follow

    def messages(channel: str, count: int = 0, timeout: float = 10.0) -> list[Message[Any]]:
        deadline = time.monotonic() + timeout
        while True:
            found = list(follow(keyop_data_dir, channel, "earliest", wait=False)) if keyop_data_dir.exists() else []
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(_LOOK_S)

    return messages


def _end_writer(data_dir: Path) -> None:
    from keyop.inspection.presence import writer_lives, writer_pid
    from keyop.storage.directory import DataDirectory

    directory = DataDirectory(data_dir)
    deadline = time.monotonic() + _LEAVE_TIMEOUT_S
    while directory.run.is_dir() and writer_lives(directory):
        pid = writer_pid(directory)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            pytest.fail(f"{data_dir}: the writer (pid {pid}) does not leave; see {directory.run / 'writer.log'}")
        time.sleep(_LOOK_S)
