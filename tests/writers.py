"""A writer process with options of its own, and what it says while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from child import DEADLINE_S, ROOT, eventually

from keyop.protocol.writer_options import WriterOptions

TINY = {
    "compaction_threshold_mb": 0.004,
    "dead_letter_compaction_threshold_mb": 0.004,
    "journal_mb": 0.0625,
    "max_files": 0,
}
"""Segments of 4 KiB, all of them kept, and journal files of 64 KiB."""


class Writer:
    """``python -m keyop.writer`` on a data directory; ended by SIGTERM when left."""

    def __init__(
        self, data_dir: Path, *, on_demand: bool = False, env: Mapping[str, str] | None = None, **options: float
    ) -> None:
        wanted = WriterOptions(str(data_dir))
        for name, value in options.items():
            setattr(wanted, name, value)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keyop.writer", f"on_demand={int(on_demand)}", *wanted.to_arguments()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def said(self, event: str) -> bool:
        """Whether its log has an event by now."""
        return any(f"] {event}" in line for line in self.lines)

    def wait_for(self, event: str, timeout: float = DEADLINE_S) -> Self:
        """Wait until its log has an event."""
        try:
            eventually(lambda: self.said(event) or self.process.poll() is not None, timeout)
        finally:
            assert self.said(event), f"no {event!r} in\n{''.join(self.lines)}"
        return self

    def settled(self) -> int | None:
        """Wait until it is open or has ended; its exit code then."""
        eventually(lambda: self.said("open") or self.process.poll() is not None)
        return self.process.poll()

    def end(self, number: int | None = None, timeout: float = DEADLINE_S) -> int:
        """Send a signal, if any, and wait for its end; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def __enter__(self) -> Self:
        return self.wait_for("open")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(DEADLINE_S)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
