"""One process of a crew, and what may go wrong with it."""

from __future__ import annotations

import os
from pathlib import Path


class CrewError(RuntimeError):
    """A process ended that should not have: with an exception, or a writer with its exit code."""


class OverdueError(RuntimeError):
    """Something did not come within its deadline: a hang."""


class Member:
    """One process of the crew, in one of its lives."""

    __slots__ = ("life", "name", "pid", "ready", "role")

    def __init__(self, name: str, role: str, life: int, pid: int) -> None:
        self.name = name
        self.role = role
        self.life = life
        self.pid = pid
        self.ready = False


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, on one line, the last line first: there an exception says what it is."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join(line.strip() for line in lines[: -count - 1 : -1])


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
