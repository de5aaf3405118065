"""How long publishes take until their message is on the disk, for each channel: counted in a slot of the port.

The first channels of a process have a slot each; what it publishes to others is counted together. Of publishes that
are in flight at the same time, which may be thousands on an event loop, one is timed for all of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from time import perf_counter_ns

from keyop.attachment.attachment import Attachment
from keyop.ipc.histogram import Distribution, Histogram
from keyop.ipc.layout import PUBLISH_TIMES
from keyop.ipc.slot import Slot

OTHER_CHANNELS = "(others)"
"""What stands in place of a name for all channels beyond the first: no channel can be called so."""
ATOMIC = "(atomic)"
"""The same for transactions of atomic(), which may concern several."""

_MOST_CHANNELS = 32


class _Channel:
    __slots__ = ("histogram", "slot", "timed_ns", "untimed")

    def __init__(self, slot: Slot | None) -> None:
        self.slot = slot
        self.histogram = slot.histogram(PUBLISH_TIMES) if slot is not None else Histogram()
        self.timed_ns = 0
        self.untimed = 0


class PublishTimes:
    """Of one messenger. Any number of threads may use it."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._generation = 0
        _live.add(self)

    def note(self, channel: str, began_ns: int) -> None:
        """A message that was published at ``began_ns`` (`perf_counter_ns`) is on the disk."""
        counted = self._channels.get(channel)
        if counted is not None and began_ns <= counted.timed_ns:
            # Without the lock, for it is the usual case on an event loop: no thread is switched within this statement.
            counted.untimed += 1
            return
        ended_ns = perf_counter_ns()
        with self._lock:
            if self._attachment.generation != self._generation:
                self._move()
            counted = self._channels.get(channel) or self._begin(channel)
            counted.histogram.note(ended_ns - began_ns, 1 + counted.untimed)
            counted.timed_ns = ended_ns
            counted.untimed = 0

    def read(self) -> dict[str, Distribution]:
        """What was counted so far, by channel."""
        with self._lock:
            return {channel: counted.histogram.read() for channel, counted in self._channels.items()}

    def _begin(self, channel: str) -> _Channel:
        if len(self._channels) >= _MOST_CHANNELS:
            channel = OTHER_CHANNELS
            if channel in self._channels:
                return self._channels[channel]
        # Without a slot, beside very many subscriptions, nobody else sees these times.
        slot = self._attachment.take_published_slot(channel.encode())
        counted = self._channels[channel] = _Channel(slot)
        return counted

    def _move(self) -> None:
        """Shared memory was made anew since."""
        self._generation = self._attachment.generation
        for counted in self._channels.values():
            if counted.slot is not None:
                counted.slot = self._attachment.slot(counted.slot.index)
                counted.slot.move_histogram(PUBLISH_TIMES, counted.histogram)

    def _orphan(self) -> None:
        """In a child process, right after fork: the slots are the parent's, and the lock may be held for ever."""
        self._lock = threading.Lock()
        self._channels.clear()


_live: weakref.WeakSet[PublishTimes] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for times in list(_live):
        times._orphan()


os.register_at_fork(after_in_child=_after_fork_in_child)
