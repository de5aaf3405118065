"""A role that is kept running: its process now, and when the next one is started."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Protocol

from keyop.processes.backoff import Backoff
from keyop.processes.child import Child
from keyop.processes.loop import Loop, Timer
from keyop.processes.output import Output
from keyop.processes.role import Role

STARTING, RUNNING, PAUSING, STOPPING, STOPPED = "starting", "running", "pausing", "stopping", "stopped"
_SAY_AGAIN_S = 10.0


class Observer(Protocol):
    """Who hears what becomes of a service."""

    def on_ready(self, service: Service) -> None:
        """A process of it does its work."""

    def on_ended(self, service: Service, code: int, reason: str) -> bool:
        """A process has ended by itself; whether to start the next one."""

    def on_stopped(self, service: Service) -> None:
        """Its process has ended as it was told."""


class Service:
    """States: starting, running, pausing (before the next try), stopping, stopped."""

    def __init__(self, role: Role, loop: Loop, output: Output, observer: Observer) -> None:
        self.role = role
        self.state = STOPPED
        self.restarts = 0
        """How often a process was started after the first."""
        self.last_reason = ""
        """Why its last process ended, with what it said last; empty after one that left as told."""
        self.child: Child | None = None
        self.was_ready = False
        """Whether any process of it has ever done its work."""
        self._loop = loop
        self._output = output
        self._observer = observer
        self._backoff = Backoff()
        self._pause: Timer | None = None
        self._deadline: Timer | None = None
        self._next: Role | None = None
        self._was_started = False

    @property
    def name(self) -> str:
        """The role's."""
        return self.role.name

    @property
    def wanted(self) -> Role | None:
        """What it will go on as; None if it is leaving or has left."""
        if self.state == STOPPING:
            return self._next
        return None if self.state == STOPPED else self.role

    def start(self) -> None:
        """Start a process. One that cannot be started counts as one that ended."""
        self._cancel_pause()
        self.restarts += self._was_started
        self._was_started = True
        self.state = STARTING
        try:
            self.child = Child(self.role, self._loop, self)
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"cannot start: {error}"
            self._pause = self._loop.later(0, lambda: self._ended(1, 0.0, reason))
            return
        self._ask_again_later(self.child)

    def stop(self, within_s: float) -> None:
        """Have its process leave; killed when it has not within the time."""
        self._next = None
        self._leave(within_s)

    def restart(self, role: Role, within_s: float) -> None:
        """Have its process leave, and start one of this role instead."""
        self._next = role
        self._backoff.forget()
        self._leave(within_s)

    def take(self, role: Role) -> None:
        """Go on with a role that equals this one: its next process gets what has changed and needs no restart."""
        if self._next is not None:
            self._next = role
        else:
            self.role = role

    def kill(self) -> None:
        """End its process at once, if there is one; heard of as always."""
        if self.child is not None:
            self.child.kill()

    def poll(self) -> None:
        """Look whether its process has ended."""
        child = self.child
        code = child.poll() if child is not None else None
        if child is None or code is None:
            return
        self.child = None
        worked_s = time.monotonic() - child.ready_s if child.ready_s is not None else 0.0
        if self.state == STOPPING:
            self._stopped(code)
        else:
            last = "".join(f"\n  {line}" for line in child.last_lines) if child.ready_s is None else ""
            what = "ended" if child.ready_s is not None else "cannot start"
            self._ended(code, worked_s, f"{what} ({_ending(code)}){last}")

    # ---- what the child says

    def on_line(self, line: str) -> None:
        """As `keyop.processes.child.Listener`."""
        if self.child is not None:
            self._output.child_line(self.name, self.child.pid, line)

    def on_ready(self) -> None:
        """As `keyop.processes.child.Listener`."""
        child = self.child
        if child is None or self.state != STARTING:
            return
        self.state = RUNNING
        self.was_ready = True
        self.last_reason = ""
        self._output.info(f"{self.name} is ready (pid {child.pid}, {time.monotonic() - child.started_s:.2f} s)")
        self._observer.on_ready(self)

    # ---- its ends

    def _leave(self, within_s: float) -> None:
        self._cancel_pause()
        if self.state == STOPPING:
            return  # what comes after was noted
        if self.child is None:
            self.state = STOPPING
            self._loop.later(0, lambda: self._stopped(0))
            return
        self.state = STOPPING
        self.child.terminate()
        self._deadline = self._loop.later(within_s, self._lose_patience)

    def _lose_patience(self) -> None:
        if self.child is not None:
            self._output.warning(f"{self.name} did not leave in time and is killed (pid {self.child.pid})")
            self.kill()

    def _stopped(self, code: int) -> None:
        if self.state != STOPPING:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._output.info(f"{self.name} has left ({_ending(code)})")
        self.state = STOPPED
        self.last_reason = ""
        role, self._next = self._next, None
        if role is not None:
            self.role = role
            self.start()
        else:
            self._observer.on_stopped(self)

    def _ended(self, code: int, worked_s: float, reason: str) -> None:
        if self.state == STOPPING:
            self._stopped(code)
            return
        self.last_reason = reason
        self.state = STOPPED
        if not self._observer.on_ended(self, code, reason):
            return
        pause_s = self._backoff.next_s(worked_s)
        self.state = PAUSING
        self._pause = self._loop.later(pause_s, self.start)
        first, _, _ = reason.partition("\n")
        after = f" after {worked_s:.1f} s of work" if worked_s else ""
        self._output.warning(f"{self.name} {first}{after}; the next one is started in {pause_s:g} s")

    def _cancel_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _ask_again_later(self, child: Child) -> None:
        def ask() -> None:
            if self.child is child and self.state == STARTING:
                waited_s = time.monotonic() - child.started_s
                last = f"; it said last: {child.last_lines[-1]}" if child.last_lines else ""
                self._output.warning(f"{self.name} is not ready after {waited_s:.0f} s (pid {child.pid}){last}")
                self._loop.later(_SAY_AGAIN_S, ask)

        self._loop.later(_SAY_AGAIN_S, ask)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
