"""The channels of a pattern's subscriber: those that it holds, that come, that are gone, that it cannot have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError
from keyop.ipc import layout
from keyop.subscriber.channels import MatchingChannels
from keyop.subscriber.member import Member
from keyop.subscriber.options import Start
from keyop.subscriber.seen_channels import SeenChannels

# Where a channel cannot be had, another process has it or the disk fails, it is tried again.
_TRY_AGAIN_S = 5.0
# So many ask the writer at once, which grants them with one sync. More answers do not fit into a port.
_AT_ONCE = 4

MakeMember = Callable[[str, Start], Member]


class Membership:
    """Changed by one thread, the subscriber's own; others may look at `members`, and `wait`."""

    def __init__(self, attachment: Attachment, pattern: str, id: str, make: MakeMember) -> None:
        """``make(channel, start)`` makes the subscription of one channel, which is not open yet."""
        self.members: dict[str, Member] = {}
        """By their channels. Replaced when it changes: others may be going through the old one."""
        self._attachment = attachment
        self._name = f"{pattern}/{id}"
        self._log = attachment.logger.getChild("subscriber")
        self._make = make
        self._matching = MatchingChannels(attachment.directory, pattern)
        self._seen = SeenChannels(attachment, pattern, id, self._log)
        self._changed = threading.Condition()
        # Channels that could not be had: why, and when they are tried again.
        self._refused: dict[str, tuple[str, float]] = {}
        self._unsaved = False

    # ---- at the start and at the end

    def open(self, start: Start) -> None:
        """Open all channels that there are. Raises as `Subscription.open`, and then none is held."""
        known = self._seen.load()
        channels = sorted(self._matching.list())
        try:
            for _channel, error in self._open(channels, "earliest" if known else start):
                if error is not None:
                    raise error
            # Only now: whoever dies before this begins anew with `start`, and finds the cursors that it has made.
            self._seen.add(channels)
            if gone := sorted(self._seen.channels - set(channels)):
                self._log.info("%s: %s were deleted", self._name, ", ".join(gone))
                self._seen.drop(gone)
        except BaseException:
            self.close()
            raise

    def close(self, deadline: float | None = None) -> None:
        """Give all channels back; what goes wrong with it is logged."""
        for member in self.members.values():
            self._close(member, deadline)

    def forget(self, deadline: float | None) -> None:
        """Give all back and delete their offsets, and that the pattern was followed.

        Raises `PublishTimeout`, and may be called again then, and `OSError`.
        """
        offsets = [self._attachment.directory.offset_file(channel, each.id) for channel, each in self.members.items()]
        for channel, member in self.members.items():
            member.close(forget=True, deadline=deadline)
            self._replace({other: each for other, each in self.members.items() if other != channel})
        if not any(path.exists() for path in offsets):  # else other parts of the id go on
            self._seen.forget()

    # ---- with each tick

    def look(self) -> bool:
        """Take in what has come, let go what was deleted; whether `members` is another one now. Raises `OSError`."""
        before = self.members
        channels = self._matching.look()
        now_s = time.monotonic()
        wanted = {channel for channel, (_why, try_at_s) in self._refused.items() if try_at_s <= now_s}
        if channels is not None:
            self._let_go(set(self.members) - channels)
            wanted |= channels - set(self.members) - set(self._refused)
            wanted &= channels
            self._refused = {channel: why for channel, why in self._refused.items() if channel in channels}
        if wanted:
            self._join(sorted(wanted))
        if self.members is not before or self._unsaved:
            self._save()
        return self.members is not before

    def _join(self, channels: list[str]) -> None:
        """These have come: they are followed from their start on."""
        if self._attachment.writer.words[layout.STATE] != layout.OPEN:
            # It would wait with the writer for its disk, and all other channels with it.
            self._refuse(dict.fromkeys(channels, ("", 0.0)))
            return
        refused = {}
        for channel, error in self._open(channels, "earliest"):
            if error is None:
                self._log.info("%s: follows %s as well", self._name, channel)
                continue
            if self._refused.get(channel, ("", 0.0))[0] != str(error):
                self._log.error("%s: %s is not followed yet: %s", self._name, channel, error)
            refused[channel] = (str(error), time.monotonic() + _TRY_AGAIN_S)
        self._refused = {channel: why for channel, why in self._refused.items() if channel not in channels}
        self._refuse(refused)

    def _refuse(self, channels: dict[str, tuple[str, float]]) -> None:
        with self._changed:
            self._refused = {**self._refused, **channels}
            self._changed.notify_all()

    def _let_go(self, channels: set[str]) -> None:
        """These were deleted. One that comes under its name is another one."""
        gone = [self.members[channel] for channel in sorted(channels)]
        if gone:
            self._replace({name: member for name, member in self.members.items() if name not in channels})
        for member in gone:
            self._log.info("%s: %s was deleted", self._name, member.channel)
            member.stop()
            self._close(member)

    def _save(self) -> None:
        """What cannot be noted now is noted with a later tick: until then messages may come again, none is lost."""
        members = set(self.members)
        try:
            if gone := self._seen.channels - members - set(self._refused):
                self._seen.drop(gone)
            self._seen.add(members)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                self._log.error("%s: its channels cannot be noted: %s", self._name, error)
            self._unsaved = True

    # ---- others wait

    def wait(self, deadline: float | None) -> bool:
        """Wait until every channel that fits now is followed, or cannot be; whether it is so. Raises `OSError`."""
        channels = self._matching.list()
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            return self._changed.wait_for(lambda: channels <= {*self.members, *self._refused}, remaining)

    # ---- one channel

    def _open(self, channels: Collection[str], start: Start) -> Iterable[tuple[str, Exception | None]]:
        """Open several, and tell of each what was wrong with it."""

        def attempt(channel: str) -> tuple[str, Exception | None]:
            try:
                member = self._make(channel, start)
                member.open()
            except (OSError, KeyopError) as error:
                return channel, error
            self._replace({channel: member}, add=True)
            return channel, None

        if len(channels) <= 1:
            return [attempt(channel) for channel in channels]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(attempt, channels))

    def _replace(self, members: dict[str, Member], *, add: bool = False) -> None:
        with self._changed:
            self.members = {**self.members, **members} if add else members
            self._changed.notify_all()

    def _close(self, member: Member, deadline: float | None = None) -> None:
        try:
            member.close(deadline=deadline)
        except KeyopError as error:
            self._log.warning("%s: %s: %s", self._name, member.channel, error)
