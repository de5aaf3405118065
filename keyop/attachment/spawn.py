"""Starting a writer in the background, and telling why it could not be."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keyop.errors import WriterUnavailable
from keyop.ipc import lease
from keyop.settings import Settings
from keyop.storage.directory import DataDirectory
from keyop.writer_options import WriterOptions

if TYPE_CHECKING:
    import subprocess

_LOG_TAIL_BYTES = 2000
_MAX_LOG_BYTES = 1 << 20


class WriterSpawner:
    """Starts a writer for one data directory, at most one at a time over all processes."""

    def __init__(self, directory: DataDirectory, settings: Settings) -> None:
        self._directory = directory
        options = WriterOptions.from_settings(settings)
        options.data_dir = str(directory.path)
        self._options = options.to_arguments()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """Where a background writer's log goes."""
        return self._directory.run / "writer.log"

    def writer_lives(self) -> bool:
        """Whether some process holds the writer's lock."""
        return lease.is_held(self._directory.run / lease.WRITER_LOCK)

    def spawn(self) -> bool:
        """Start a writer unless one lives, is being started, or is the supervisor's business; whether it was done."""
        self.reap()
        if self._child is not None or lease.is_held(self._directory.run / lease.SUPERVISED):
            return False
        turn = lease.acquire(self._directory.run / lease.SPAWN_LOCK, patience_s=0)
        if turn is None:
            return False
        try:
            if self.writer_lives():
                return False
            self._start(turn.fd)
        finally:
            turn.release()
        return True

    def _start(self, turn_fd: int) -> None:
        """The child inherits the lock that says "being started" and drops it when it holds its own."""
        import subprocess

        path = self.log_path
        fresh = path.exists() and path.stat().st_size > _MAX_LOG_BYTES
        with path.open("wb" if fresh else "ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "keyop.writer", "on_demand=1", f"turn_fd={turn_fd}", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(turn_fd,),
                start_new_session=True,
                env=writer_environment(),
            )

    def reap(self) -> int | None:
        """If the writer that this process started has ended: its exit code, once."""
        if self._child is None:
            return None
        code = self._child.poll()
        if code is not None:
            self._child = None
        return code

    def unavailable(self, why: str) -> WriterUnavailable:
        """The exception, with the last lines of the writer's log."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-5:]
        except OSError:
            lines = []
        tail = "".join(f"\n  {line}" for line in lines)
        return WriterUnavailable(f"{self._directory.path}: {why}; see {self.log_path}{tail}")


def writer_environment() -> dict[str, str]:
    """The child finds this very package, wherever it was imported from."""
    environment = dict(os.environ)
    # glibc: one heap for the writer's few threads instead of one for each.
    environment.setdefault("MALLOC_ARENA_MAX", "1")
    package_root = str(Path(__file__).resolve().parents[2])
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if package_root not in paths:
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, paths)])
    return environment
