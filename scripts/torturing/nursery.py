"""A process that has imported everything and forks the others: a new life costs 10 ms instead of 100.

It has one thread and never attaches to anything, so each child is a clean new process. It says when a child has ended,
and when whoever it works for is gone it kills them all.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Self

_MESSAGE_BYTES = 1 << 16
_DEADLINE_S = 30.0
_PR_SET_PDEATHSIG = 1
_SCRIPTS = Path(__file__).resolve().parents[1]


class NurseryError(RuntimeError):
    """The nursery, or a child of it, did not do what it should within the time."""


class Nursery:
    """The side of whoever wants processes. One for a whole run; not for several threads at once."""

    def __init__(self, log: Path) -> None:
        """``log`` is where the children's stderr goes, and the stacks of those that hang."""
        self.log = log
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [str(_SCRIPTS), str(_SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MALLOC_ARENA_MAX": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with theirs, log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "torturing.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        self._socket = ours
        self._ended: dict[int, int] = {}

    def fork(self, assignment: dict[str, Any]) -> int:
        """A new child that does its assignment; its pid."""
        self._socket.send(json.dumps(assignment).encode())
        deadline_s = time.monotonic() + _DEADLINE_S
        while True:
            pid = self._hear(deadline_s)
            if pid is not None:
                return pid

    def ended(self, pid: int) -> int | None:
        """A child's exit status (minus the signal that killed it); None while it lives."""
        while pid not in self._ended and self._heard(0):
            self._hear(time.monotonic())
        return self._ended.get(pid)

    def wait(self, pid: int, deadline_s: float) -> int:
        """Wait for a child's end; its exit status. Raises `NurseryError` after the deadline (monotonic)."""
        while pid not in self._ended:
            self._hear(deadline_s)
        return self._ended[pid]

    def wait_for_any(self, seconds: float) -> None:
        """Wait until some child ends, but not longer than this."""
        if self._heard(seconds):
            self._hear(time.monotonic() + _DEADLINE_S)

    def forget(self, pid: int) -> None:
        """Its end is known; pids are used again."""
        self._ended.pop(pid, None)

    def _heard(self, seconds: float) -> bool:
        return bool(select.select([self._socket], [], [], max(0.0, seconds))[0])

    def _hear(self, deadline_s: float) -> int | None:
        """Take one message: the pid of a new child, or None if it told of an end."""
        if not self._heard(deadline_s - time.monotonic()):
            raise NurseryError("the nursery did not answer, or a child did not end, in time")
        data = self._socket.recv(_MESSAGE_BYTES)
        if not data:
            raise NurseryError(f"the nursery has ended ({self._process.wait(10)}), see {self.log}")
        said = json.loads(data)
        if "pid" in said:
            self._ended.pop(said["pid"], None)
            return int(said["pid"])
        self._ended[said["ended"]] = said["status"]
        return None

    def close(self) -> None:
        """End it and all that it has made."""
        self._socket.close()
        try:
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- its own side


def _serve(connection: socket.socket) -> None:
    import torturing.lives  # noqa: F401  (what its children need)

    waking, woken = os.pipe()
    os.set_blocking(waking, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of whoever we work for
    # What is there now is shared by all children, and no collector need touch it.
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    while True:
        ready = select.select([connection, waking], [], [])[0]
        if waking in ready:
            os.read(waking, 4096)
            _tell_ends(connection, children)
        if connection not in ready:
            continue
        data = connection.recv(_MESSAGE_BYTES)
        if not data:
            break
        pid = os.fork()
        if pid == 0:
            for fd in (waking, woken):
                os.close(fd)
            signal.set_wakeup_fd(-1)
            connection.close()
            _live(data)
        children.add(pid)
        connection.send(json.dumps({"pid": pid}).encode())
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _tell_ends(connection: socket.socket, children: set[int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            try:
                connection.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())
            except BrokenPipeError:
                return  # nobody listens any more


def _live(data: bytes) -> None:
    """A child's whole life. Never returns."""
    from torturing.lives import ROLES
    from torturing.workload import Assignment

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        faulthandler.register(signal.SIGUSR2, all_threads=True)
        assignment = Assignment.from_dict(json.loads(data))
        code = ROLES[assignment.role](assignment) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Not `sys.exit`: `atexit` would close what a life has left open on purpose.
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
