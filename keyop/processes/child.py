"""One process of a role: started so that it cannot outlive its parent, its lines read, its readiness heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from keyop.attachment.spawn import writer_environment as child_environment
from keyop.processes.loop import Loop
from keyop.processes.role import Role
from keyop.readiness import READY_VARIABLE

_LAST_LINES = 10
_LONGEST_LAST_LINE = 300
_LONGEST_LINE_BYTES = 16_384
_READ_BYTES = 65_536
_LAST_READS = 32  # a pipe holds one of them, unless somebody has made it larger
_PR_SET_PDEATHSIG = 1
# What a service manager tells its own child is not for the children of that.
_NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Listener(Protocol):
    """Who hears of a child."""

    def on_line(self, line: str) -> None:
        """It has written a line to its standard output or error."""

    def on_ready(self) -> None:
        """It does its work."""


class Child:
    """Raises `OSError` and `SubprocessError` where it cannot be started."""

    def __init__(self, role: Role, loop: Loop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener
        self.started_s = time.monotonic()
        self.ready_s: float | None = None
        """When it said that it is ready, on the clock of `time.monotonic`."""
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._rest = b""
        ready_reading, ready_writing = os.pipe()
        output_reading, output_writing = os.pipe()
        try:
            self._process = _start(role, ready_writing, output_writing)
        except BaseException:
            os.close(ready_reading)
            os.close(output_reading)
            raise
        finally:
            os.close(ready_writing)
            os.close(output_writing)
        self._ready_fd: int | None = ready_reading
        self._output_fd: int | None = output_reading
        for fd in (ready_reading, output_reading):
            os.set_blocking(fd, False)
        loop.watch(ready_reading, self._read_readiness)
        loop.watch(output_reading, self._read_output)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code once it has ended, negative for a signal; then all that it wrote has been read."""
        code = self._process.poll()
        if code is not None:
            # What it has started itself may hold the pipes still, and write on. Nobody waits for that.
            self._read_readiness()
            for _ in range(_LAST_READS):
                if self._output_fd is None or not self._read_some(self._output_fd):
                    break
            self._close_readiness()
            self._close_output()
        return code

    def terminate(self) -> None:
        """Have it finish what is in hand, and leave."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, and the processes that it has started itself, at once."""
        if self._process.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _read_readiness(self) -> None:
        if self._ready_fd is None:
            return
        try:
            said = os.read(self._ready_fd, 64)
        except BlockingIOError:
            return
        self._close_readiness()
        if said:
            self.ready_s = time.monotonic()
            self._listener.on_ready()

    def _close_readiness(self) -> None:
        if self._ready_fd is not None:
            self._loop.forget(self._ready_fd)
            os.close(self._ready_fd)
            self._ready_fd = None

    def _read_output(self) -> None:
        if self._output_fd is not None:
            self._read_some(self._output_fd)

    def _read_some(self, fd: int) -> bool:
        """Pass on what there is; whether there was anything."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_output()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(self._rest) > _LONGEST_LINE_BYTES:
            self._tell(self._rest)
            self._rest = b""
        return True

    def _close_output(self) -> None:
        if self._output_fd is None:
            return
        self._loop.forget(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = None
        if self._rest:
            self._tell(self._rest)
            self._rest = b""

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        if text.strip():
            self.last_lines.append(text[:_LONGEST_LAST_LINE])
        self._listener.on_line(text)


def _start(role: Role, ready_fd: int, output_fd: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in child_environment().items() if name not in _NOT_FOR_CHILDREN}
    environment |= {"PYTHONUNBUFFERED": "1", **role.environment, READY_VARIABLE: str(ready_fd)}
    command = list(role.command)
    inherited = [ready_fd]
    if role.settings is not None:
        settings_fd = _file_with(role.settings)
        inherited.append(settings_fd)
        command.append(f"settings_fd={settings_fd}")
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=inherited,
            env=environment,
            # Ctrl-C in a terminal is the parent's business, and its own processes can be killed with it.
            start_new_session=True,
            preexec_fn=_dying_with_parent(),
        )
    finally:
        for fd in inherited[1:]:
            os.close(fd)


def _file_with(text: str) -> int:
    """A file without a name, to be read from its beginning."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        return os.dup(file.fileno())


def _dying_with_parent() -> Callable[[], None] | None:
    """Run between fork and exec: whatever ends the parent, the kernel then ends this child by SIGKILL.

    Not SIGTERM: a handler that hangs would live on, hold its subscription, and keep its successor out. The kernel
    watches the thread that forked, so that has to be the main one. ``prctl(2)``
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it has died before it was watched

    return die_with_parent
