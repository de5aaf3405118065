"""How old messages are when they come to a handler, and how long it takes: counted in the subscription's slot.

A handler that takes long is timed for every message. Of quicker ones a message is timed about every two milliseconds,
and counts for those since the last one that was timed, too: so the counts are those of all messages. The first message
after a pause is always timed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, time_ns
from typing import Any

from keyop.attachment.held_cursor import HeldCursor
from keyop.ipc.histogram import Distribution
from keyop.ipc.layout import AGES, HANDLER_TIMES
from keyop.messages.message import Message
from keyop.messages.timestamps import TimeReader

# Timing one message costs 3 to 10 microseconds: the code and its data are out of the caches by then.
_EVERY_NS = 2_000_000
# A gap in a channel must not hide what comes behind it.
_LONGEST_STRIDE_BYTES = 1 << 19


class Stopwatch:
    """Of one subscription: used by its thread alone."""

    __slots__ = ("_ages", "_handler_times", "_looked_ns", "_looked_offset", "_parse_ns", "look_at", "untimed")

    def __init__(self, held: HeldCursor) -> None:
        self._ages = held.histogram(AGES)
        self._handler_times = held.histogram(HANDLER_TIMES)
        self._parse_ns = TimeReader().parse_ns
        self._looked_ns = 0
        self._looked_offset = 0
        self.look_at = 0
        """The message that begins here, or the first one behind it, is to be timed."""
        self.untimed = 0
        """Messages handled since the last one that was timed."""

    def read(self) -> tuple[Distribution, Distribution]:
        """Ages and handler times so far. Any thread may ask."""
        return self._ages.read(), self._handler_times.read()

    def begin_batch(self, offset: int) -> None:
        """A batch has been read that begins here."""
        if perf_counter_ns() - self._looked_ns >= _EVERY_NS:
            self.look_at = offset

    def invoke(self, handler: Callable[[Message[Any]], object], message: Message[Any]) -> object:
        """Run the handler, and time it if it is time for that."""
        if message.offset < self.look_at and message.attempt == 1:
            self.untimed += 1
            return handler(message)
        return self.time(handler, message)

    def time(self, handler: Callable[[Message[Any]], object], message: Message[Any]) -> object:
        """Run the handler and time it."""
        came_ns = time_ns()
        began_ns = perf_counter_ns()
        try:
            return handler(message)
        finally:
            self._note(message, came_ns, began_ns, perf_counter_ns())

    def _note(self, message: Message[Any], came_ns: int, began_ns: int, ended_ns: int) -> None:
        weight = 1 + self.untimed
        self.untimed = 0
        self._handler_times.note(ended_ns - began_ns, weight)
        if message.attempt == 1:
            published_ns = self._parse_ns(message.ts_text)
            if published_ns is not None:
                self._ages.note(came_ns - published_ns, weight)
        # As far as it came, at this pace, in the time between two looks.
        passed = message.offset - self._looked_offset
        stride = passed * _EVERY_NS // (ended_ns - self._looked_ns + 1)
        self.look_at = message.offset + min(max(1, stride), _LONGEST_STRIDE_BYTES)
        self._looked_ns, self._looked_offset = ended_ns, message.offset
