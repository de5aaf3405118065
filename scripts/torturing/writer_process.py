"""A writer as a process of the rig's own, whose log is read line by line."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from keyop.attachment.spawn import writer_environment

DEADLINE_S = 60.0


class WriterSilent(AssertionError):
    """The writer did not say what it should have said, or not in time."""


class WriterProcess:
    """``python -m keyop.writer`` on a directory; ``options`` are those of `keyop.protocol.writer_options`.

    In the foreground unless ``on_demand=1`` is among them: then nobody else starts one beside it. ``module`` may be one
    that makes a flawed writer.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environment: dict[str, str] | None = None,
        module: str = "keyop.writer",
        **options: object,
    ) -> None:
        arguments = {"data_dir": data_dir, "log_format": "json", "log_level": "debug", **options}
        self.records: list[dict[str, Any]] = []
        self.began_s = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *(f"{key}={value}" for key, value in arguments.items())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={**writer_environment(), **(environment or {})},
        )
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"event": "traceback", "level": "error", "line": line.decode(errors="replace").rstrip()}
            self._heard.put(record | {"heard_s": time.perf_counter()})
        self._heard.put(None)

    def wait_for(self, event: str, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The next record of this event. Raises `WriterSilent` if the writer ends or the time is over before it."""
        return self.wait_for_any((event,), timeout_s)

    def wait_for_any(self, events: tuple[str, ...], timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The next record of one of these events. Raises as `wait_for`."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                record = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WriterSilent(f"no {events} within {timeout_s} s; heard: {self.records[-5:]}") from None
            if record is None:
                self._heard.put(None)
                raise WriterSilent(f"ended ({self.process.wait(5)}) without {events}; heard: {self.records[-5:]}")
            self.records.append(record)
            if record["event"] in events:
                return record

    def wait_until_open(self, timeout_s: float = DEADLINE_S) -> float:
        """Seconds from its start until it takes transactions."""
        return float(self.wait_for("open", timeout_s)["heard_s"] - self.began_s)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self._finish()

    def stop(self, timeout_s: float = DEADLINE_S) -> int:
        """SIGTERM, and wait; its exit code."""
        self.process.terminate()
        return self.end(timeout_s)

    def end(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its own end; its exit code. Raises `subprocess.TimeoutExpired`."""
        code = self.process.wait(timeout_s)
        self._finish()
        return code

    def _finish(self) -> None:
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        while (record := self._heard.get()) is not None:
            self.records.append(record)
        self._heard.put(None)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def said(self, *levels: str) -> list[dict[str, Any]]:
        """What it has logged so far of these levels, as far as it was waited for."""
        return [record for record in self.records if record.get("level") in levels]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def remove_shared_memory(data_dir: Path) -> list[str]:
    """Remove what killed processes left of a directory in shared memory; the names. Call it before ``run/`` goes."""
    from keyop.ipc.names import PREFIX, DirectoryIdentity

    shm = Path("/dev/shm")
    if not (data_dir / "run" / "id").exists() or not shm.is_dir():
        return []
    prefix = f"{PREFIX[1:]}{DirectoryIdentity(data_dir / 'run').key}-"
    names = [name for name in os.listdir(shm) if name.removeprefix("sem.").startswith(prefix)]
    for name in names:
        (shm / name).unlink(missing_ok=True)
    return names
