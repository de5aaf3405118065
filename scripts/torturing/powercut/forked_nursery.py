"""A nursery without a start of Python: each image gets one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from torturing import nursery
from torturing.nursery import Nursery


class ForkedNursery(Nursery):
    """Forked from this process, which has imported everything, has one thread, and never attaches to anything."""

    def __init__(self, log: Path) -> None:
        """As `Nursery`."""
        self.log = log
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if not child:
            errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for number in (1, 2):
                os.dup2(errors, number)
            ours.close()
            try:
                nursery._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._process = _Forked(child)  # type: ignore[assignment]
        self._socket = ours
        self._ended = {}


class _Forked:
    """As much of `subprocess.Popen` as a nursery needs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self, timeout: float) -> int:
        """As `subprocess.Popen.wait`."""
        deadline = time.monotonic() + timeout
        while True:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("nursery", timeout)
            time.sleep(0.002)

    def kill(self) -> None:
        """As `subprocess.Popen.kill`."""
        os.kill(self._pid, signal.SIGKILL)
