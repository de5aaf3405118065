"""Another Python process under test: it says lines on its standard output, and the test waits for them."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 20.0

_PRELUDE = """\
import os, signal, sys, threading, time
from keyop import Message, Messenger, context
from keyop.errors import *
from pathlib import Path
from keyop.configuration.lookup import settings_for
data_dir = Path(sys.argv[1])
def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # in one piece: several threads say things
    sys.stdout.flush()
def hear():
    return sys.stdin.readline().strip()
"""


class Child:
    """A process that runs ``source`` with `say`, `hear`, `data_dir` and keyop at hand; killed when left."""

    def __init__(self, source: str, data_dir: Path | str, *arguments: object, env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + textwrap.dedent(source), str(data_dir), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        """What it wrote to its standard error so far."""
        return "".join(self._errors)

    def hear(self, timeout: float = DEADLINE_S) -> str:
        """Its next line."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"the child said nothing within {timeout} s\n{self.errors}") from None
        if line is None:
            self._lines.put(None)
            self._readers[1].join(5)
            raise AssertionError(f"the child ended ({self.process.wait(5)})\n{self.errors}")
        return line

    def expect(self, line: str, timeout: float = DEADLINE_S) -> None:
        """Its next line is this one."""
        heard = self.hear(timeout)
        assert heard == line, f"{heard!r} instead of {line!r}\n{self.errors}"

    def rest(self, timeout: float = DEADLINE_S) -> list[str]:
        """All lines that it says until its end."""
        lines = []
        deadline = time.monotonic() + timeout
        while (line := self._lines.get(timeout=max(0.01, deadline - time.monotonic()))) is not None:
            lines.append(line)
        self._lines.put(None)
        return lines

    def say(self, line: str = "") -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def end(self, timeout: float = DEADLINE_S) -> int:
        """Wait for its own end; the exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass


def eventually(condition: Callable[[], object], timeout: float = DEADLINE_S) -> None:
    """Wait until the condition holds; what it needs comes from other processes and cannot be waited for otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.002)


def writer_pid(data_dir: Path) -> int | None:
    """The pid that the writer noted; None if no writer holds the lock."""
    from keyop.ipc import lease

    path = data_dir / "run" / lease.WRITER_LOCK
    if not path.exists() or not lease.is_held(path):
        return None
    words = path.read_text().split()
    return int(words[1]) if len(words) >= 2 else None


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread stands still: the signal alone returns before that."""
    os.kill(pid, signal.SIGSTOP)
    if Path("/proc").is_dir():
        states = list(Path(f"/proc/{pid}/task").glob("*/stat"))
        eventually(lambda: all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in states))


def kill_writer(data_dir: Path, number: int = signal.SIGKILL) -> None:
    """End the writer that runs now, and wait until its lock has fallen."""
    pid = None

    def known() -> bool:
        nonlocal pid
        pid = writer_pid(data_dir)
        return pid is not None

    eventually(known)
    assert pid is not None
    os.kill(pid, number)
    eventually(lambda: writer_pid(data_dir) != pid)
