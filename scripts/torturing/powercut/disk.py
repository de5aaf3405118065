"""A disk that remembers: a file served over FUSE, its log of writes and flushes, and how long that log is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from struct import Struct
from typing import Self

from torturing.powercut import system

ENTRY = Struct("<QQI")
"""Monotonic time in nanoseconds, offset, length, then the bytes of a write; of a flush the length is `FLUSH`."""
FLUSH = 0xFFFF_FFFF
MARK = Struct("<Q")
NAME = "disk"

_DEADLINE_S = 10.0


class Disk:
    """The rig's side: the server's process, the served file, its log and its mark. Left, all of it is taken down."""

    def __init__(self, directory: Path, first_contents: Path) -> None:
        """Serve a copy of ``first_contents`` below a new ``directory``, which should be in memory (a tmpfs).

        Raises `RigError` and `OSError`.
        """
        directory.mkdir()
        self._mount = directory / "mount"
        self._mount.mkdir()
        (directory / "contents").touch()
        system.copy_sparse(first_contents, directory / "contents")
        self.mark = directory / "mark"
        self.mark.write_bytes(MARK.pack(0))
        self.log = directory / "log"
        self.path = self._mount / NAME
        self._server = subprocess.Popen(
            [sys.executable, "-m", "torturing.powercut.remembering", str(directory)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            system.wait_until(self._is_served, _DEADLINE_S, "the FUSE server did not come up")
        except BaseException:
            self.close()
            raise

    def _is_served(self) -> bool:
        if self._server.poll() is not None:
            raise system.RigError(f"the FUSE server ended ({self._server.returncode})")
        return self.path.exists()

    def length(self) -> int:
        """How many entries the log has now."""
        return int(MARK.unpack(self.mark.read_bytes())[0])

    def close(self) -> None:
        """Unmount and end the server. What was mounted on the disk has to be unmounted before."""
        if os.path.ismount(self._mount):
            system.unmount(self._mount)
        try:
            self._server.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
