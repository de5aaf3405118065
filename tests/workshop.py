"""A directory with modules, and ``keyop worker`` processes in it: what they log is waited for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Self

from child import DEADLINE_S, ROOT, eventually

PRELUDE = """\
import asyncio, logging, os, sys, threading, time
from pathlib import Path
import keyop
from keyop import Message
log = logging.getLogger("app")
app = keyop.App()
"""


class Workshop:
    """Where the modules are, and the data."""

    def __init__(self, path: Path, data_dir: Path) -> None:
        self.path = path
        self.data_dir = data_dir
        self._processes: list[WorkerProcess] = []

    def write(self, source: str, name: str = "shop.py", prelude: str = PRELUDE) -> Path:
        """Write a module, at once: who watches it never sees half of it."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".draft")
        draft.write_text(prelude + textwrap.dedent(source))
        draft.replace(target)
        return target

    def worker(self, *arguments: object) -> WorkerProcess:
        """Start ``keyop worker`` with these arguments."""
        process = WorkerProcess([*map(str, arguments), "--data-dir", str(self.data_dir)], self.path)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()


class WorkerProcess:
    """One ``keyop worker``, with what it wrote to its standard error so far."""

    def __init__(self, arguments: list[str], cwd: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keyop.cli", "worker", *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_for(self, pattern: str, count: int = 1) -> Self:
        """Wait until what it logs matches so often."""

        def found() -> bool:
            return len(re.findall(pattern, self.log)) >= count

        eventually(lambda: found() or not self._reader.is_alive())
        assert found(), f"no {pattern!r} in\n{self.log}"
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = None) -> int:
        """Send a signal, if any, and wait for its end; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reader.join(5)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
