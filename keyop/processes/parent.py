"""The parent of a set of processes: starts them in order, starts again what dies, stops them in reverse order.

    parent = Parent([Role(name="a", command=(...,)), Role(name="b", command=(...,), rank=1)], Output())
    code = parent.run()

`run` returns when SIGTERM or SIGINT has come and all have left (0), or when one cannot be started for the first time:
then what it said last has been printed, and the code is that process's own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence

from keyop.processes.loop import Loop
from keyop.processes.output import Output
from keyop.processes.role import Role
from keyop.processes.service import RUNNING, STOPPED, Service

GRACE_S = 30.0
EXIT_FAILED = 1
# Of the time that is left, so that those who are stopped after it have some as well.
_SHARE = 2 / 3


class Parent:
    """One thread, the main one; signals become calls in `loop`, where others may add what they watch."""

    def __init__(self, roles: Sequence[Role], output: Output, *, grace_s: float = GRACE_S) -> None:
        self.loop = Loop()
        self.services = {role.name: Service(role, self.loop, output, self) for role in roles}
        """By the role's name, in the order of their ranks."""
        self.is_up = False
        """Whether all have been ready once."""
        self.is_stopping = False
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever a service is ready, has ended, or has stopped."""
        self.on_end: Callable[[], None] = lambda: None
        """Called at the end of `run`, before the loop is closed."""
        output.use(self.loop)
        self._output = output
        self._grace_s = grace_s
        self._deadline_s = 0.0
        self._exit_code = 0
        self._failure = ""
        self._rank_that_leaves: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self.stop)
        self.loop.on_signal(signal.SIGCHLD, self._look_at_children)

    def run(self) -> int:
        """Until told to stop; the exit code. To be called once."""
        try:
            self._start_next_rank()
            self.loop.run()
        finally:
            # After an error of our own as well: nobody is left behind.
            for service in self.services.values():
                service.kill()
            self.on_end()
            if self._failure:
                self._output.error(self._failure)
            self._output.close()
            self.loop.close()
        return self._exit_code

    def stop(self) -> None:
        """Have all leave, rank after rank. The second time: at once."""
        if self.is_stopping:
            for service in self.services.values():
                service.kill()
            return
        self.is_stopping = True
        self._deadline_s = time.monotonic() + self._grace_s
        self._output.info(f"stopping, within {self._grace_s:g} s")
        self.on_change()
        self._stop_next_rank()

    def find(self, name: str) -> list[Service]:
        """The services of a role's name, or of a group's: ``billing`` are ``billing/1`` and ``billing/2``."""
        return [service for service in self.services.values() if name in (service.name, service.role.group)]

    def restart(self, services: Sequence[Service]) -> None:
        """Have their processes leave, and start new ones."""
        for service in services:
            service.restart(service.role, self._grace_s)

    def replace(self, roles: Sequence[Role]) -> list[str]:
        """Run these roles from now on: what is new is started, what is gone stopped, what differs restarted.

        Returns what was done, a phrase for each.
        """
        wanted = {role.name: role for role in roles}
        done = []
        for name in [name for name in self.services if name not in wanted]:
            done.append(f"{name} is stopped")
            self.services[name].stop(self._grace_s)
        for role in roles:
            service = self.services.get(role.name)
            if service is None:
                done.append(f"{role.name} is started")
                service = self.services[role.name] = Service(role, self.loop, self._output, self)
                if self.is_up:
                    service.start()
            elif service.wanted != role:
                done.append(f"{role.name} is started again")
                service.restart(role, self._grace_s)
            else:
                service.take(role)
        return done

    # ---- what services tell

    def on_ready(self, service: Service) -> None:
        """As `keyop.processes.service.Observer`."""
        if not self.is_up and not self.is_stopping:
            self._start_next_rank()
        self.on_change()

    def on_ended(self, service: Service, code: int, reason: str) -> bool:
        """As `keyop.processes.service.Observer`."""
        if self.is_stopping:
            self._stop_next_rank()
            return False
        if self.is_up or service.was_ready:
            self.loop.later(0, self.on_change)
            return True
        self._failure = f"{service.name} {reason}"
        self._output.error(f"{service.name} cannot start, and so nothing does")
        self._exit_code = code if code > 0 else EXIT_FAILED
        self.stop()
        return False

    def on_stopped(self, service: Service) -> None:
        """As `keyop.processes.service.Observer`."""
        if self.is_stopping:
            self._stop_next_rank()
        else:
            del self.services[service.name]
            if not self.is_up:
                self._start_next_rank()
        self.on_change()

    # ---- rank after rank

    def _start_next_rank(self) -> None:
        """Start all of the lowest rank that is not running yet, once all below it are."""
        waiting = [service for service in self.services.values() if not service.was_ready]
        if not waiting:
            self.is_up = True
            return
        rank = min(service.role.rank for service in waiting)
        for service in waiting:
            if service.role.rank == rank and service.state == STOPPED:
                service.start()

    def _stop_next_rank(self) -> None:
        left = [service for service in self.services.values() if service.state != STOPPED]
        if not left:
            self.loop.stop()
            return
        ranks = sorted({service.role.rank for service in left})
        if ranks[-1] == self._rank_that_leaves:
            return
        self._rank_that_leaves = ranks[-1]
        time_left_s = max(0.0, self._deadline_s - time.monotonic())
        for service in left:
            if service.role.rank == ranks[-1]:
                service.stop(time_left_s * (_SHARE if len(ranks) > 1 else 1))

    def _look_at_children(self) -> None:
        for service in list(self.services.values()):
            service.poll()


def all_run(services: Iterable[Service]) -> bool:
    """Whether each has a process that does its work."""
    return all(service.state == RUNNING for service in services)
