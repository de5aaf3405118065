"""A rival's server process: started on a free port of 127.0.0.1, and gone when we are."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(port: int) -> socket.socket:
    """A connection that sends small messages at once."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Server:
    """One server process. Its output goes to ``server.log`` beside its data."""

    def __init__(self, command: list[str], port: int, place: Path) -> None:
        self.port = port
        self._log = (place / "server.log").open("wb")
        self._process = subprocess.Popen(
            command, cwd=place, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_us
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{self._process.args!r} ended with {self._process.returncode}: see {self._log.name}"
                )
            try:
                connect(self.port).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self._process.args!r} does not listen on {self.port}")

    def stop(self) -> None:
        """End it, by force if it does not go in 10 s."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _die_with_us() -> None:
    # So that a benchmark killed by kill -9 leaves no server behind.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
