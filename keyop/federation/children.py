"""Hub and client as child processes of a messenger: for programs that want the whole in one."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable

from keyop import errors
from keyop.attachment.spawn import writer_environment as child_environment
from keyop.configuration.settings import Settings
from keyop.errors import FederationError
from keyop.federation.identity import Role
from keyop.federation.serving import command_line
from keyop.ipc import lease
from keyop.storage.directory import DataDirectory

_READY_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 25.0
_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)


def wanted(settings: Settings) -> list[Role]:
    """Which of the two a configuration asks for."""
    roles: list[Role] = []
    if settings.hub.enabled:
        roles.append("hub")
    if settings.client.enabled:
        roles.append("client")
    return roles


def missing(settings: Settings) -> list[Role]:
    """Those that are asked for and do not run on the data directory."""
    run = DataDirectory(settings.storage.data_dir).run
    return [role for role in wanted(settings) if not lease.is_held(run / f"{role}.lock")]


class _Child:
    """One process. It leaves when its standard input ends, so that it does not outlive this one."""

    def __init__(self, role: Role, settings: Settings, ended: Callable[[_Child], None]) -> None:
        self.role = role
        command, fd = command_line(role, settings, log_format="text", log_level="warning", is_child=True)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(fd,),
                env=child_environment(),
                text=True,
                # Ctrl-C in a terminal is this process's business, and its close() is the children's.
                start_new_session=True,
            )
        finally:
            os.close(fd)
        self._ready = threading.Event()
        self.said = ""
        threading.Thread(target=self._watch, args=(ended,), name=f"keyop-{role}", daemon=True).start()

    def _watch(self, ended: Callable[[_Child], None]) -> None:
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().rstrip("\n")
        self._ready.set()
        self.process.stdout.read()
        self.process.wait()
        ended(self)

    def wait_until_ready(self) -> None:
        """Raises what the child says that is wrong."""
        if not self._ready.wait(_READY_TIMEOUT_S):
            raise FederationError(f"the {self.role} process was not ready within {_READY_TIMEOUT_S:.0f} s")
        ready, _, text = self.said.partition(" ")
        if ready == "ready":
            return
        code = self.process.wait()
        kind = getattr(errors, ready, None)
        if isinstance(kind, type) and issubclass(kind, errors.KeyopError):
            raise kind(text)
        raise FederationError(f"the {self.role} process ended with code {code}: {self.said or 'it said nothing'}")

    def stop(self, deadline_s: float) -> None:
        """Have it finish and leave; what does not in time is killed, and goes on where it stopped next time."""
        self.leave()
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def leave(self) -> None:
        """End its standard input, which tells it."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class Children:
    """The processes of one messenger. One that ends is started again, later each time."""

    def __init__(self, settings: Settings, logger: logging.Logger) -> None:
        """Start them and wait until the hub listens. Raises `FederationError`, and what `Host.open` raises."""
        self._settings = settings
        self._log = logger.getChild("federation")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failures: dict[Role, int] = {}
        self._children: dict[Role, _Child] = {}
        try:
            for role in wanted(settings):
                child = self._children[role] = _Child(role, settings, self._ended)
                child.wait_until_ready()
                self._log.info("%s: %s", role, child.said.removeprefix("ready "))
        except BaseException:
            self.close()
            raise

    def _ended(self, child: _Child) -> None:
        """In the child's own thread: start the next one after a while."""
        if not child.said.startswith("ready "):
            return  # its start has failed, which was said
        role = child.role
        failures = self._failures[role] = self._failures.get(role, 0) + 1
        wait_s = _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
        if self._closing.is_set():
            return
        self._log.error(
            "the %s process ended (%s); the next one is started in %g s", role, child.process.returncode, wait_s
        )
        if self._closing.wait(wait_s):
            return
        with self._lock:
            if not self._closing.is_set():
                self._children[role] = _Child(role, self._settings, self._ended)

    def close(self) -> None:
        """End them: batches under way are finished."""
        self._closing.set()
        with self._lock:
            children = list(self._children.values())
        for child in children:
            child.leave()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for child in children:
            child.stop(deadline_s)
