"""A forked process of the rig: the parent has no threads when it is made, so that it is a clean one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from torturing.writer_process import DEADLINE_S

_FORK = multiprocessing.get_context("fork")


class Child:
    """A forked process that says words and is told some."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=work, args=(theirs, *arguments), daemon=True)
        self._process.start()
        self.pid = self._process.pid
        theirs.close()

    def expect(self, word: str) -> None:
        """Its next word is this one, within the time."""
        if not self._pipe.poll(DEADLINE_S * 3):
            raise TimeoutError(f"a process has not said {word!r} in time")
        heard = self._receive()
        if heard != word:
            raise RuntimeError(f"a process said {heard!r} instead of {word!r}")

    def hear(self) -> Any:
        """What it sends next, if it is no text: that is a traceback."""
        if not self._pipe.poll(DEADLINE_S):
            raise TimeoutError("a process has not answered in time")
        heard = self._receive()
        if isinstance(heard, str):
            raise RuntimeError(heard)
        return heard

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError("a process has ended") from None

    def join(self) -> None:
        """Wait for its own end."""
        self._process.join(DEADLINE_S)

    def say(self, word: str) -> None:
        """Tell it to go on."""
        self._pipe.send(word)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.join(DEADLINE_S)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._pipe.close()
