"""One semaphore, many threads: one of them waits on it for all, the lead.

The lead wakes the threads whose condition holds, each by its own lock, and hands the lead on when its own holds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from keyop.ipc.semaphore import Semaphore
from keyop.ipc.word import Fence


class _Waiter:
    __slots__ = ("lock", "ready")

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.lock = threading.Lock()
        self.lock.acquire()


class Gate:
    """Waits of this process's threads on one semaphore, with its sleeping flag in shared memory."""

    def __init__(self, semaphore: Semaphore, words: memoryview, flag: int) -> None:
        self._semaphore = semaphore
        self._words = words
        self._flag = flag
        self._fence = Fence()
        self._mutex = threading.Lock()
        self._lead = False
        self._waiters: list[_Waiter] = []

    @property
    def busy(self) -> bool:
        """Whether a thread waits here."""
        return self._lead or bool(self._waiters)

    def move(self, semaphore: Semaphore, words: memoryview) -> None:
        """Go on with a new semaphore and flag: shared memory was made anew. The lead is woken to look at them."""
        old, self._semaphore, self._words = self._semaphore, semaphore, words
        old.post()

    def knock(self) -> None:
        """Make the lead look again: a lost wake-up costs at most the tick that calls this."""
        self._semaphore.post()

    def wait(self, ready: Callable[[], bool], deadline: float | None = None, spin_us: int = 0) -> bool:
        """Return True when ``ready()`` does, False when ``deadline`` (`time.monotonic`) has passed."""
        if ready():
            return True
        if spin_us and not self._lead and self._spin(ready, spin_us):
            return True
        with self._mutex:
            leads = not self._lead
            if leads:
                self._lead = True
            else:
                waiter = _Waiter(ready)
                self._waiters.append(waiter)
        if leads:
            return self._lead_until(ready, deadline)
        return self._follow(waiter, deadline)

    @staticmethod
    def _spin(ready: Callable[[], bool], spin_us: int) -> bool:
        until = time.perf_counter_ns() + spin_us * 1000
        while time.perf_counter_ns() < until:
            os.sched_yield()
            if ready():
                return True
        return False

    def _lead_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        flag, fence = self._flag, self._fence
        try:
            while True:
                semaphore = self._semaphore
                self._words[flag] = 1
                fence()
                if ready():
                    return True
                if self._waiters:
                    # Before the first sleep, too: what came while nobody led was posted to nobody.
                    self._wake_ready()
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                semaphore.wait(remaining)
        finally:
            self._words[flag] = 0
            self._hand_on()

    def _wake_ready(self) -> None:
        with self._mutex:
            for waiter in self._waiters[:]:
                if _is_ready(waiter):
                    self._waiters.remove(waiter)
                    waiter.lock.release()

    def _hand_on(self) -> None:
        with self._mutex:
            self._lead = False
            if not self._waiters:
                return
        self._wake_ready()
        self._nudge()

    def _nudge(self) -> None:
        """If nobody leads, wake one waiter: it will."""
        with self._mutex:
            if not self._lead and self._waiters:
                self._waiters.pop(0).lock.release()

    def _follow(self, waiter: _Waiter, deadline: float | None) -> bool:
        leads = False
        try:
            while not leads:
                if waiter.ready():
                    return True  # it came before this one was in the list: the lead did not find it there
                waiter.lock.acquire(timeout=-1.0 if deadline is None else max(0.0, deadline - time.monotonic()))
                if waiter.ready():
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                leads = self._lead_or_follow_on(waiter)
        finally:
            if not leads:
                # Interrupted, too (Ctrl-C): who is woken to lead has to be there.
                self._leave(waiter)
        return self._lead_until(waiter.ready, deadline)

    def _lead_or_follow_on(self, waiter: _Waiter) -> bool:
        """Woken, and not ready: take the lead if nobody has it."""
        with self._mutex:
            leads = not self._lead
            if leads:
                self._lead = True
            if leads and waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not leads and waiter not in self._waiters:
                self._waiters.append(waiter)
        return leads

    def _leave(self, waiter: _Waiter) -> None:
        """Go, and hand on what this thread may have been woken for."""
        with self._mutex:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        self._nudge()


def _is_ready(waiter: _Waiter) -> bool:
    """By the waiter's own condition. One that raises is woken: it is raised in its own thread."""
    try:
        return waiter.ready()
    except Exception:
        return True
