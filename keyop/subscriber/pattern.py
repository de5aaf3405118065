"""One subscriber of all channels that a pattern fits: a cursor for each of them, and one thread for all.

The handler runs for one message at a time. Channels take turns, a batch each; in each the order is kept. A message that
waits for its next attempt holds up its own channel only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from keyop.attachment.attachment import Attachment
from keyop.subscriber.growth import Growth
from keyop.subscriber.member import Member
from keyop.subscriber.membership import MakeMember, Membership
from keyop.subscriber.options import Start

# The files of a channel that has not grown, by what the board says, are looked at once in so many ticks: 10 s. With few
# channels they are looked at with each tick, as a plain subscription's.
_TICKS_OF_TRUST = 20
_FEW = 64
# No more channels than this keep their segment open.
_MOST_DESCRIPTORS = 256


class PatternSubscription:
    """As `keyop.subscriber.subscription.Subscription` from the outside. `open` and `start` it, `stop` it."""

    def __init__(self, attachment: Attachment, pattern: str, id: str, start: Start, make: MakeMember) -> None:
        """``make(channel, start)`` makes the subscription of one channel, which is not open yet."""
        self.channel = pattern
        self.id = id
        self._attachment = attachment
        self._log = attachment.logger.getChild("subscriber")
        self._start = start
        self._make = make
        self._membership = Membership(attachment, pattern, id, self._make_member)
        self._growth = Growth(attachment)
        # Those that may have something to do, in the order in which they came up.
        self._ready: dict[Member, None] = {}
        # Those whose time comes.
        self._due: set[Member] = set()
        # Those with an open segment, the one that was read last at the end.
        self._reading: dict[Member, None] = {}
        self._interrupted: dict[Member, None] = {}
        self._stopping = False
        self._is_asked_to_look = False
        self._ticks = -1
        self._thread: threading.Thread | None = None

    def _make_member(self, channel: str, start: Start) -> Member:
        member = self._make(channel, start)
        member.on_interrupt = self._on_interrupt
        return member

    def _on_interrupt(self, member: Member) -> None:
        self._interrupted[member] = None

    def open(self) -> None:
        """Open all channels that there are. Raises as `Subscription.open`, and then none is held."""
        self._membership.open(self._start)
        self._take_in()

    def _take_in(self) -> None:
        """The channels are others now."""
        members = self._membership.members
        self._growth.watch(members)  # new ones count as grown
        there = set(members.values())
        self._due &= there
        for few in (self._ready, self._reading):
            for member in few.keys() - there:
                del few[member]

    def start(self) -> None:
        """Begin to deliver, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=f"keyop-{self.channel}-{self.id}", daemon=True)
        self._thread.start()

    # ---- the loop

    def _run(self) -> None:
        gate = self._attachment.data_gate
        spin_us = 0
        while not self._stopping:
            self._look_around()
            if self._ready:
                self._step_all()
                spin_us = self._attachment.settings.ipc.spin_us
            else:
                gate.wait(self._has_work, self._next_due_s(), spin_us=spin_us)
                spin_us = 0

    def _step_all(self) -> None:
        """Each that is ready has its turn once; who has more gets in line again."""
        ready, self._ready = self._ready, {}
        for member in ready:
            if self._stopping:
                return
            if member.step():
                self._ready[member] = None
            if member.due_s is None:
                self._due.discard(member)
            else:
                self._due.add(member)
            self._spare_descriptors(member)

    def _spare_descriptors(self, member: Member) -> None:
        self._reading.pop(member, None)
        self._reading[member] = None
        if len(self._reading) > _MOST_DESCRIPTORS:
            longest_ago = next(iter(self._reading))
            del self._reading[longest_ago]
            longest_ago.rest()

    def _look_around(self) -> None:
        """Who may have something to do."""
        ticks = self._attachment.ticks
        if ticks != self._ticks or self._is_asked_to_look:
            self._ticks = ticks
            self._is_asked_to_look = False
            self._tick(ticks)
        members = self._membership.members
        for channel in self._growth.grown():
            self._ready[members[channel]] = None
        while self._interrupted:
            self._ready[self._interrupted.popitem()[0]] = None
        now_s = time.monotonic()
        for member in self._due:
            due_s = member.due_s
            if due_s is not None and due_s <= now_s:
                self._ready[member] = None

    def _tick(self, ticks: int) -> None:
        try:
            if self._membership.look():
                self._take_in()
        except OSError as error:
            self._log.warning("%s/%s: new channels are not seen: %s", self.channel, self.id, error)
        self._growth.place()
        # In case the board is wrong.
        everybody = self.each()
        for member in everybody if len(everybody) <= _FEW else everybody[ticks % _TICKS_OF_TRUST :: _TICKS_OF_TRUST]:
            self._ready[member] = None

    def _has_work(self) -> bool:
        """From any thread."""
        return (
            self._stopping
            or self._is_asked_to_look
            or self._attachment.ticks != self._ticks
            or bool(self._interrupted)
            or self._growth.any()
        )

    def _next_due_s(self) -> float | None:
        times = [member.due_s for member in self._due]
        return min((due_s for due_s in times if due_s is not None), default=None)

    # ---- others look on

    def each(self) -> Sequence[Member]:
        """The subscriptions of the channels that it follows now."""
        return list(self._membership.members.values())

    def catch_up(self, deadline: float | None) -> bool:
        """Wait until every channel that fits now is followed, or cannot be; whether it is so."""
        self._is_asked_to_look = True
        self._attachment.data_gate.knock()
        return self._membership.wait(deadline)

    # ---- the end

    def stop(self) -> None:
        """Ask the thread to end after the message under way."""
        self._stopping = True
        for member in self.each():
            member.stop()
        self._attachment.data_gate.knock()

    @property
    def is_current_thread(self) -> bool:
        """Whether this is asked by its own handler."""
        return self._thread is threading.current_thread()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self, *, forget: bool = False, deadline: float | None = None) -> None:
        """Give all channels back to the writer; ``forget`` deletes the offsets, and that the pattern was followed.

        The thread has ended. Raises `PublishTimeout`, and may be called again then, and `OSError`.
        """
        if forget:
            self._membership.forget(deadline)
        else:
            self._membership.close(deadline)
