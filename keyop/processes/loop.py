"""One thread that waits for descriptors, time and signals, and calls back: never two things at once.

asyncio would do, for 10 MiB more. And with threads a child could not be forked safely.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

Callback = Callable[[], None]


class Timer:
    """A call that is due later."""

    __slots__ = ("callback", "due_s")

    def __init__(self, due_s: float, callback: Callback) -> None:
        self.due_s = due_s
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Have it not happen; also after it has."""
        self.callback = None


class Loop:
    """Signals become items of a queue: their handlers do nothing else. To be used in the main thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._received: deque[int] = deque()
        self._on_signal: dict[int, Callback] = {}
        self._previous: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}
        self._stopped = False
        # A signal that comes just before the loop waits makes this readable, and so is not waited past.
        self._wake_reading, self._wake_writing = os.pipe()
        for fd in (self._wake_reading, self._wake_writing):
            os.set_blocking(fd, False)
        self._previous_wake_fd = signal.set_wakeup_fd(self._wake_writing, warn_on_full_buffer=False)
        self.watch(self._wake_reading, self._empty_wake_pipe)

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call this in the loop whenever the signal has come."""
        self._on_signal[number] = callback
        previous = signal.signal(number, self._note_signal)
        self._previous.setdefault(number, previous)

    def watch(self, fd: int, readable: Callback) -> None:
        """Call this whenever the descriptor has something to read, or is at its end; and no more when it takes more."""
        self._watch(fd, selectors.EVENT_READ, readable)

    def watch_writing(self, fd: int, writable: Callback) -> None:
        """Call this whenever the descriptor takes more; and no more when it has something to read."""
        self._watch(fd, selectors.EVENT_WRITE, writable)

    def _watch(self, fd: int, event: int, callback: Callback) -> None:
        if fd in self._selector.get_map():
            self._selector.modify(fd, event, callback)
        else:
            self._selector.register(fd, event, callback)

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        self._selector.unregister(fd)

    def later(self, seconds: float, callback: Callback) -> Timer:
        """Call this once, so many seconds from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
        return timer

    def every(self, seconds: float, callback: Callback) -> None:
        """Call this again and again."""

        def tick() -> None:
            self.later(seconds, tick)
            callback()

        self.later(seconds, tick)

    def stop(self) -> None:
        """Have `run` return after what is being done now."""
        self._stopped = True

    def run(self) -> None:
        """Until somebody calls `stop`."""
        while not self._stopped:
            for key, _ in self._selector.select(self._patience_s()):
                # What was called just now may have forgotten this one.
                if self._selector.get_map().get(key.fd) == key:
                    key.data()
            while self._received:
                self._on_signal[self._received.popleft()]()
            self._call_due()

    def close(self) -> None:
        """Give signals and descriptors back."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(self._previous_wake_fd)
        self._selector.close()
        os.close(self._wake_reading)
        os.close(self._wake_writing)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(number)

    def _empty_wake_pipe(self) -> None:
        try:
            while os.read(self._wake_reading, 4096):
                pass
        except BlockingIOError:
            pass

    def _patience_s(self) -> float | None:
        if self._received:
            return 0.0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _call_due(self) -> None:
        now_s = time.monotonic()
        while self._timers and self._timers[0][0] <= now_s:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()
