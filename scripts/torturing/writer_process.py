"""A writer as a process of the rig's own, whose log is read line by line."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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

    def freeze(self) -> None:
        """SIGSTOP, and wait until every thread stands still."""
        self.process.send_signal(signal.SIGSTOP)
        threads = list(Path(f"/proc/{self.process.pid}/task").glob("*/stat"))
        until(lambda: all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in threads), "it stands still")

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


def until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds that other processes bring about. Raises `WriterSilent` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise WriterSilent(f"not within {timeout_s} s: {what}")
        time.sleep(0.003)
