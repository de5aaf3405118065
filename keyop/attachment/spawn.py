"""Starting a writer in the background, and telling why it could not be."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from keyop.configuration.settings import Settings
from keyop.errors import WriterUnavailable
from keyop.ipc import lease
from keyop.ownership import open_given
from keyop.protocol.writer_options import WriterOptions
from keyop.readiness import READY_VARIABLE
from keyop.storage import disk
from keyop.storage.directory import DataDirectory

if TYPE_CHECKING:
    import subprocess

_LOG_TAIL_BYTES = 2000
_MAX_LOG_BYTES = 1 << 20
# A writer that crashes again and again is started more and more rarely.
_BACKOFF_S = 0.05
_BACKOFF_MAX_S = 5.0
_HEALTHY_S = 10.0


class WriterSpawner:
    """Starts a writer for one data directory, at most one at a time over all processes."""

    def __init__(self, directory: DataDirectory, settings: Settings, log: logging.Logger) -> None:
        self._directory = directory
        self._log = log
        self._options = WriterOptions.from_settings(settings).to_arguments()
        self._child: subprocess.Popen[bytes] | None = None
        # Writers of this process's that failed one after the other, and when the next may be started.
        self._failures = 0
        self._not_before_s = 0.0
        self._started_s = 0.0
        # What the disk said last when it was in the way.
        self._trouble: OSError | None = None

    @property
    def log_path(self) -> Path:
        """Where a background writer's log goes."""
        return self._directory.run / "writer.log"

    def writer_lives(self) -> bool:
        """Whether some process holds the writer's lock; also where a failing disk keeps one from looking."""
        try:
            return lease.is_held(self._directory.run / lease.WRITER_LOCK)
        except OSError as error:
            return self._note_trouble(error)

    def _note_trouble(self, error: OSError) -> bool:
        if error.errno not in disk.WAIT_ERRNOS:
            raise error
        self._trouble = error
        return True

    def spawn(self) -> bool:
        """Start a writer unless one lives, is being started, or is the supervisor's business; whether it was done.

        Where a disk fails, or descriptors are short, it is not done, and the next call tries again.
        """
        self.reap()
        if self._child is not None or time.monotonic() < self._not_before_s:
            return False
        try:
            return self._spawn()
        except OSError as error:
            return not self._note_trouble(error)

    def _spawn(self) -> bool:
        if lease.is_held(self._directory.run / lease.SUPERVISED):
            return False
        turn = lease.acquire(self._directory.run / lease.SPAWN_LOCK, patience_s=0)
        if turn is None:
            return False
        try:
            if self.writer_lives():
                return False
            self._start(turn.fd)
            turn.hand_over()
        finally:
            turn.release()
        return True

    def _start(self, turn_fd: int) -> None:
        """The child inherits the lock that says "being started" and drops it when it holds its own."""
        import subprocess

        _reap_left()
        self._started_s = time.monotonic()
        with os.fdopen(self._open_log(), "ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "keyop.writer", "on_demand=1", f"turn_fd={turn_fd}", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(turn_fd,),
                start_new_session=True,
                # It is this process's parent that waits, and not for the writer.
                env={name: value for name, value in writer_environment().items() if name != READY_VARIABLE},
            )

    def _open_log(self) -> int:
        path = self.log_path
        try:
            fresh = path.exists() and path.stat().st_size > _MAX_LOG_BYTES
            return open_given(path, os.O_WRONLY | os.O_APPEND | (os.O_TRUNC if fresh else 0))
        except OSError as error:
            # A disk that has no room for a log may well have it for a writer.
            self._note_trouble(error)
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def reap(self) -> int | None:
        """If the writer that this process started has ended: its exit code, once."""
        if self._child is None:
            return None
        code = self._child.poll()
        if code is None:
            if time.monotonic() - self._started_s > _HEALTHY_S:
                self._failures = 0
            return None
        self._child = None
        if code:
            self._failures += 1
            self._not_before_s = time.monotonic() + min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (self._failures - 1))
            self._log.warning("%s: the writer ended (%s); see %s", self._directory.path, _ending(code), self.log_path)
        return code

    def leave(self) -> None:
        """This process detaches, its writer lives on: to drop the `Popen` of a living child is a ResourceWarning."""
        _reap_left()
        if self._child is not None and self._child.poll() is None:
            _left.append(self._child.pid)
            self._child.returncode = 0
        self._child = None

    def unavailable(self, why: str) -> WriterUnavailable:
        """The exception, with the last lines of the writer's log."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-5:]
        except OSError:
            lines = []
        tail = "".join(f"\n  {line}" for line in [*lines, *filter(None, [self._trouble])])
        return WriterUnavailable(f"{self._directory.path}: {why}; see {self.log_path}{tail}")


# Writers that this process started and detached from.
_left: list[int] = []


def _reap_left() -> None:
    for pid in _left[:]:
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _left.remove(pid)


def writer_environment() -> dict[str, str]:
    """The child finds this very package, wherever it was imported from."""
    environment = dict(os.environ)
    # glibc: one heap for its few threads instead of one for each.
    environment.setdefault("MALLOC_ARENA_MAX", "1")
    package_root = str(Path(__file__).resolve().parents[2])
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if package_root not in paths:
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, paths)])
    return environment


def _ending(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
