"""One subscriber of all channels that a pattern fits: a cursor for each of them, and one thread for all.

The handler runs for one message at a time. Channels take turns, a batch each; in each the order is kept. A message that
waits for its next attempt holds up its own channel only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError
from keyop.ipc import layout
from keyop.subscriber.channels import MatchingChannels
from keyop.subscriber.growth import Growth
from keyop.subscriber.member import Member
from keyop.subscriber.options import Start
from keyop.subscriber.seen_channels import SeenChannels

# Where a channel cannot be had, another process has it or the disk fails, it is tried again.
_TRY_AGAIN_S = 5.0
# The files of a channel that has not grown, by what the board says, are looked at once in so many ticks: 10 s. With few
# channels they are looked at with each tick, as a plain subscription's.
_TICKS_OF_TRUST = 20
_FEW = 64
# More channels than this do not keep a descriptor each while they are at rest.
_MOST_DESCRIPTORS = 256

MakeMember = Callable[[str, Start], Member]


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
        self._matching = MatchingChannels(attachment.directory, pattern)
        self._seen = SeenChannels(attachment, pattern, id, self._log)
        self._growth = Growth(attachment)
        self._members: dict[str, Member] = {}
        self._changed = threading.Condition()
        # Those that may have something to do, in the order in which they came up.
        self._ready: dict[Member, None] = {}
        # Those whose time comes.
        self._due: set[Member] = set()
        self._interrupted: dict[Member, None] = {}
        # Channels that could not be had: why, and when they are tried again.
        self._refused: dict[str, tuple[str, float]] = {}
        self._unsaved = False
        self._stopping = False
        self._ticks = -1
        self._is_asked_to_look = False
        self._thread: threading.Thread | None = None

    # ---- opening

    def open(self) -> None:
        """Open all channels that there are. Raises as `Subscription.open`, and then none is held."""
        known = self._seen.load()
        channels = sorted(self._matching.list())
        try:
            for channel in channels:
                self._open(channel, "earliest" if known else self._start)
            # Only now: whoever dies before this begins anew with `start`, and finds the cursors that it has made.
            self._seen.add(channels)
            if gone := sorted(self._seen.channels - set(channels)):
                self._log.info("%s/%s: %s were deleted", self.channel, self.id, ", ".join(gone))
                self._seen.drop(gone)
        except BaseException:
            for member in self._members.values():
                self._close(member)
            raise
        self._growth.watch(self._members)
        self._ready = dict.fromkeys(self._members.values())

    def _open(self, channel: str, start: Start) -> Member:
        member = self._make(channel, start)
        member.on_interrupt = self._on_interrupt
        member.open()
        with self._changed:
            self._members = {**self._members, channel: member}  # others may be going through the old one
            self._changed.notify_all()
        return member

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
        many = len(self._members) > _MOST_DESCRIPTORS
        for member in ready:
            if self._stopping:
                return
            if member.step():
                self._ready[member] = None
            elif many:
                member.rest()
            if member.due_s is None:
                self._due.discard(member)
            else:
                self._due.add(member)

    def _look_around(self) -> None:
        """Who may have something to do."""
        ticks = self._attachment.ticks
        if ticks != self._ticks or self._is_asked_to_look:
            self._ticks = ticks
            self._is_asked_to_look = False
            self._tick(ticks)
        for channel in self._growth.grown():
            self._ready[self._members[channel]] = None
        while self._interrupted:
            self._ready[self._interrupted.popitem()[0]] = None
        now_s = time.monotonic()
        for member in self._due:
            due_s = member.due_s
            if due_s is not None and due_s <= now_s:
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

    def _on_interrupt(self, member: Member) -> None:
        self._interrupted[member] = None

    # ---- with each tick

    def _tick(self, ticks: int) -> None:
        try:
            self._look_for_channels()
        except OSError as error:
            self._log.warning("%s/%s: new channels are not seen: %s", self.channel, self.id, error)
        self._growth.place()
        # In case the board is wrong.
        everybody = list(self._members.values())
        for member in everybody if len(everybody) <= _FEW else everybody[ticks % _TICKS_OF_TRUST :: _TICKS_OF_TRUST]:
            self._ready[member] = None

    def _look_for_channels(self) -> None:
        channels = self._matching.look()
        now_s = time.monotonic()
        if channels is not None:
            self._let_go(set(self._members) - channels)
            wanted = channels - set(self._members) - set(self._refused)
            self._refused = {channel: why for channel, why in self._refused.items() if channel in channels}
        else:
            wanted = set()
        wanted |= {channel for channel, (_why, try_at_s) in self._refused.items() if try_at_s <= now_s}
        joined = [channel for channel in sorted(wanted) if self._join(channel)]
        if joined:
            self._growth.watch(self._members)
            self._ready.update(dict.fromkeys(self._members[channel] for channel in joined))
        if joined or self._unsaved:
            self._save()

    def _join(self, channel: str) -> bool:
        """Take a channel in that has come, from its start on; whether it could be had."""
        if self._attachment.writer.words[layout.STATE] != layout.OPEN:
            # It would wait with the writer for its disk, and all other channels with it.
            self._refuse(channel, "", 0.0)
            return False
        try:
            self._open(channel, "earliest")
        except (OSError, KeyopError) as error:
            why, _ = self._refused.get(channel, ("", 0.0))
            if why != str(error):
                self._log.error("%s/%s: %s is not followed yet: %s", self.channel, self.id, channel, error)
            self._refuse(channel, str(error), time.monotonic() + _TRY_AGAIN_S)
            return False
        self._refused = {other: why for other, why in self._refused.items() if other != channel}
        self._log.info("%s/%s: follows %s as well", self.channel, self.id, channel)
        return True

    def _refuse(self, channel: str, why: str, try_at_s: float) -> None:
        with self._changed:
            self._refused = {**self._refused, channel: (why, try_at_s)}
            self._changed.notify_all()

    def _let_go(self, channels: set[str]) -> None:
        """These were deleted. One that comes under its name is another one."""
        if not channels:
            return
        gone = [self._members[channel] for channel in channels]
        with self._changed:
            self._members = {name: member for name, member in self._members.items() if name not in channels}
        self._growth.watch(self._members)
        for member in gone:
            self._ready.pop(member, None)
            self._due.discard(member)
            self._log.info("%s/%s: %s is gone", self.channel, self.id, member.channel)
            member.stop()
            self._close(member)
        self._unsaved = True

    def _save(self) -> None:
        """What cannot be noted now is noted with a later tick: until then nothing is lost that is not done twice."""
        members = set(self._members)
        try:
            if gone := self._seen.channels - members - set(self._refused):
                self._seen.drop(gone)
            self._seen.add(members)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                self._log.error("%s/%s: its channels cannot be noted: %s", self.channel, self.id, error)
            self._unsaved = True

    # ---- others look on

    def each(self) -> list[Member]:
        """The subscriptions of the channels that it follows now."""
        return list(self._members.values())

    def catch_up(self, deadline: float | None) -> bool:
        """Wait until every channel that fits now is followed, or cannot be; whether it is so."""
        channels = self._matching.list()
        self._is_asked_to_look = True
        self._attachment.data_gate.knock()
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            return self._changed.wait_for(lambda: channels <= {*self._members, *self._refused}, remaining)

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
        if not forget:
            for member in self.each():
                self._close(member, deadline)
            return
        for channel, member in list(self._members.items()):
            member.close(forget=True, deadline=deadline)
            del self._members[channel]
        self._seen.forget()

    def _close(self, member: Member, deadline: float | None = None) -> None:
        try:
            member.close(deadline=deadline)
        except KeyopError as error:
            self._log.warning("%s/%s: %s", member.channel, self.id, error)
