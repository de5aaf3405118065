"""What one group commit takes from the rings.

Taking plans: lines get their offsets, cursors their new places. Nothing is written here, except that channels are
opened. A transaction is checked whole before any of it is planned, so that all or none of it stands in the frame.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from zlib import crc32

from keyop.errors import ChannelNameError
from keyop.ipc import layout
from keyop.ipc.layout import HEAD, MASK, RING_SIZE_BYTES
from keyop.ipc.ring import HEADER, copy
from keyop.names import check_channel
from keyop.protocol import entry, inbound, reply
from keyop.protocol.entry import APPEND, SINGLE, SPILL, SYNC, Entry
from keyop.storage.channel_log import ChannelLog
from keyop.writer.attached import AttachedPort
from keyop.writer.audit import Audit
from keyop.writer.channels import Channels
from keyop.writer.cursor import Cursor, Subscriber
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.refused import Full, Later, Refused, Wait
from keyop.writer.seen import SeenIds
from keyop.writer.spill import MAX_BYTES, Spill, Spills
from keyop.writer.subscriptions import Subscriptions

_SINGLE_BYTES = SINGLE.size
_TOO_SHORT = (0,) * 7
_NEWLINE = ord("\n")
# What an entry of a spilled transaction takes in the frame, without its channel's name.
_SPILLED_ENTRY_BYTES = entry.ENTRY.size + entry.SPILL_REFERENCE.size + 24
# Kinds that come in a transaction of their own.
_ALONE = (entry.OPEN, entry.SET, entry.CHECKPOINT)
# Kinds that come in a round of their own.
_FIRST = (entry.CHECKPOINT, entry.DELETE)
# An id becomes a file's name; the positions of federation peers are longer than a subscriber's.
_is_id = re.compile(rb"(?!\.)[A-Za-z0-9._-]{1,248}").fullmatch


class Round:
    """The round under way; one object serves all rounds, `clear` begins the next."""

    def __init__(
        self,
        channels: Channels,
        cursors: Cursors,
        subscriptions: Subscriptions,
        spills: Spills,
        seen: SeenIds,
        audit: Audit,
        log: Log,
    ) -> None:
        self._channels = channels
        self._cursors = cursors
        self._subscriptions = subscriptions
        self._spills = spills
        self._seen = seen
        self._audit = audit
        self._log = log
        self.max_bytes = 0
        self.refused = 0
        self.duplicates = 0
        # Answers that were not taken: something was left in a ring for them, until all rings are tried again.
        self.unanswered = False
        self.clear()

    def clear(self) -> None:
        """Begin an empty round."""
        self.bytes = 0
        self.sync = False
        self.spilled_bytes = 0
        # Why something was left in a ring: a disk, a process whose port is to be swept first.
        self.waiting = False
        self.later = False
        self.ports: list[AttachedPort] = []
        # Those that ask for a checkpoint: that is all that is taken from them.
        self.asking: list[AttachedPort] = []
        self.logs: list[ChannelLog] = []
        # Those whose cursors the frame is to hold, and those of them whose files are to follow at once.
        self.subscribers: dict[Subscriber, None] = {}
        self.closed: list[Subscriber] = []
        self.forgotten: list[Subscriber] = []
        # Channels that are deleted, each with the number of its deletion: then nothing else is taken.
        self.deleted: dict[bytes, int] = {}
        self.spilled: list[Spill] = []
        self.buried: list[AttachedPort] = []

    # ---- taking

    def take(self, port: AttachedPort) -> None:
        """Plan what a port's ring holds, as far as the round has room. Called when HEAD differs from ``taken``."""
        position = port.taken
        waiting = (port.words[HEAD] - position) & MASK
        if waiting > RING_SIZE_BYTES:
            self._unreadable(port, "its head is beyond the ring")
            return
        data = copy(port.memory, position, waiting)
        by_name = self._channels.by_name
        at = 0
        while at < waiting:
            begin = at + 8
            length, check = HEADER.unpack_from(data, at) if begin <= waiting else (0, 0)
            end = begin + length
            if not length or end > waiting or crc32(data[begin:end], position) != check:
                self._unreadable(port, f"the record at {position} fails its CRC")
                break
            if self.bytes and self.bytes + length > self.max_bytes:
                break
            after = (position + 8 + length) & MASK
            # Nothing that a process puts into its ring may end the writer: the next one would find it there again.
            first = SINGLE.unpack_from(data, begin) if length >= _SINGLE_BYTES else _TOO_SHORT
            flags, kind, channel_length, _, _, lines_length, _ = first
            lines_at = begin + _SINGLE_BYTES + channel_length
            log = by_name.get(data[begin + _SINGLE_BYTES : lines_at])
            if (
                log is not None
                and kind == APPEND
                and lines_at + lines_length == end
                and not flags & SPILL
                and data[end - 1] == _NEWLINE
            ):
                # The plain publish to a channel that is open: nothing can be wrong with it.
                if not log.chunks:
                    self.logs.append(log)
                log.plan(data[lines_at:end])
                self.bytes += length
                if flags & SYNC:
                    self.sync = True
            elif not self._take_any(port, data, begin, end, after):
                break
            elif self.asking or self.deleted:
                waiting = end
            position = after
            at = end
            port.suspect_since = 0.0
        if at:
            if not port.blocked:
                port.waits_for = 0
            port.taken = position
            self.ports.append(port)

    def _unreadable(self, port: AttachedPort, why: str) -> None:
        if port.words[layout.POISONED]:
            port.blocked = True
        elif port.suspect():
            self._log.error("ring_closed", port=port.name, pid=port.port.pid, why=why)

    def _take_any(self, port: AttachedPort, data: bytes, begin: int, end: int, after: int) -> bool:
        """Any other transaction; whether it was taken (planned or refused)."""
        if not port.dead and port.port.reply_room() - len(port.replies) < layout.REPLIES_A_RECORD:
            port.blocked = self.unanswered = True
            return False
        try:
            self._take_checked(port, data, begin, end, after)
        except Refused as refused:
            self.refused += 1
            port.reply(after, refused.code, refused.value)
        except Wait as wait:
            port.waits_for = wait.error.errno or errno.EIO
            port.blocked = self.waiting = True
            return False
        except Later:
            port.waits_for = 0
            port.blocked = self.later = True
            return False
        except Full:
            return False
        except (ValueError, struct.error):
            self.refused += 1
            port.reply(after, reply.MALFORMED)
        return True

    def _take_checked(self, port: AttachedPort, data: bytes, begin: int, end: int, after: int) -> None:
        (flags,) = entry.TRANSACTION.unpack_from(data, begin)
        body = begin + entry.TRANSACTION.size
        spill = None
        if flags & SPILL:
            spill = self._spills.load(data[body:end], MAX_BYTES - self.spilled_bytes)
            data, body, end = spill.data, 0, len(spill.data)
        entries = list(entry.decode(data, body, end))
        if begin > HEADER.size and entries and entries[0].kind in _FIRST:
            raise Full
        for item in entries:
            if item.kind in _ALONE and len(entries) > 1:
                raise Refused(reply.MALFORMED)  # planning these may fail
            if item.kind == entry.DELETE:
                self._check_round_is_empty(entries)
            self._check(port, item)
        at = body
        known = self.duplicates
        for item in entries:
            at += entry.ENTRY.size + len(item.channel) + len(item.id) + len(item.data)
            self._plan(port, item, after, spill, at - len(item.data))
        if entries and entries[0].kind == entry.INBOUND:
            port.reply(after, reply.OK, self.duplicates - known)
        if spill is not None:
            self.spilled.append(spill)
            self.spilled_bytes += len(spill.data)
            self.bytes += len(entries) * _SPILLED_ENTRY_BYTES
        else:
            self.bytes += end - begin
        if flags & SYNC:
            self.sync = True

    # ---- checking: raises, plans nothing

    def _check(self, port: AttachedPort, item: Entry) -> None:
        kind = item.kind
        if kind == APPEND:
            self._channels.open(item.channel)
            if not item.data.endswith(b"\n"):
                raise Refused(reply.MALFORMED)
        elif kind == entry.OPEN:
            self._check_names(item)
            self._channels.open(item.channel)
            self._subscriptions.check_open(port, item)
        elif kind == entry.CURSOR:
            self._subscriptions.check_move(port, item)
        elif kind == entry.CLOSE:
            self._subscriptions.check_close(port, item)
        elif kind == entry.DELETE:
            self._check_channel(item)
            self._channels.check_deletable(item.channel)
            self._subscriptions.check_delete(item)
        elif kind in (entry.FORGET, entry.SET):
            self._check_names(item)
            self._subscriptions.check_unheld(port, item)
        elif kind == entry.INBOUND:
            self._check_inbound(item)
        elif kind == entry.FOLLOW:
            self._channels.open(item.channel)
        elif kind == entry.AUDIT:
            if not item.data.endswith(b"\n"):
                raise Refused(reply.MALFORMED)
        elif kind != entry.CHECKPOINT:
            raise Refused(reply.MALFORMED)

    def _check_inbound(self, item: Entry) -> None:
        log = self._channels.open(item.channel)
        inbound.unpack(item.data)
        try:
            self._seen.load(item.channel, log.directory)
        except OSError as error:
            raise Wait(error) from error

    def _check_names(self, item: Entry) -> None:
        """Names become paths. A cursor that this round forgets may be opened by the next one."""
        self._check_channel(item)
        if not _is_id(item.id):
            raise Refused(reply.MALFORMED)
        if any(subscriber.key == (item.channel, item.id) for subscriber in self.forgotten):
            raise Later

    @staticmethod
    def _check_channel(item: Entry) -> None:
        try:
            check_channel(item.channel.decode())
        except (ChannelNameError, UnicodeDecodeError) as error:
            raise Refused(reply.MALFORMED) from error

    def _check_round_is_empty(self, entries: list[Entry]) -> None:
        """What is deleted has nothing in the journal, nor in this round."""
        if any(item.kind != entry.DELETE for item in entries):
            raise Refused(reply.MALFORMED)
        if self.ports or self.logs or self.subscribers or self.forgotten:
            raise Full

    # ---- planning: cannot fail, but that the look into the files of OPEN and SET can, before anything is changed

    def _plan(self, port: AttachedPort, item: Entry, after: int, spill: Spill | None, data_at: int) -> None:
        kind = item.kind
        if kind == APPEND:
            self._plan_lines(item.channel, item.data, spill, data_at)
        elif kind == entry.INBOUND:
            lines = inbound.unpack(item.data)
            runs, known = self._seen.unseen(lines)
            for start, stop in runs:
                self._plan_lines(item.channel, item.data[start:stop], spill, data_at + start)
            self.duplicates += known
        elif kind == entry.AUDIT:
            self._audit.add(item.data)
        elif kind == entry.FOLLOW:
            self._subscriptions.follow(port, item, self._channels.open(item.channel))
        elif kind == entry.CURSOR:
            self.subscribers[self._subscriptions.move(item).subscriber] = None
        elif kind == entry.OPEN:
            log = self._channels.open(item.channel)
            cursor = self._subscriptions.open(port, item, log)
            # Its offset file says what it needs before the retention looks again.
            self._plan_filed(cursor.subscriber)
            self.sync = True
            port.reply(after, reply.OK, cursor.planned)
            port.reply(after, reply.OK, cursor.moves)
            port.reply(after, reply.OK, cursor.attempts)
            port.reply(after, reply.OK, cursor.attempts_offset)
        elif kind == entry.CLOSE or (kind == entry.FORGET and self._subscriptions.is_shared(port, item)):
            cursor_or_none = self._subscriptions.close(port, item)
            if cursor_or_none is not None:
                self._plan_filed(cursor_or_none.subscriber)
        elif kind == entry.DELETE:
            self.deleted[item.channel] = int.from_bytes(os.urandom(8), "little")
            self.sync = True
        elif kind == entry.FORGET:
            self.forgotten.append(self._subscriptions.forgotten(item))
            self.sync = True
        elif kind == entry.SET:
            subscriber = self._subscriptions.set(item)
            self._plan_filed(subscriber)
            self.sync = True
            port.reply(after, reply.OK, subscriber.planned)
        else:
            self.asking.append(port)
            port.reply(after, reply.OK, 1)

    def _plan_filed(self, subscriber: Subscriber) -> None:
        self.subscribers[subscriber] = None
        self.closed.append(subscriber)

    def _plan_lines(self, channel: bytes, lines: bytes, spill: Spill | None, at: int) -> None:
        """Plan whole lines, which stand ``at`` a position of the spill file if there is one."""
        log = self._channels.by_name[channel]
        if not log.chunks:
            self.logs.append(log)
        if spill is None:
            log.plan(lines)
        else:
            log.plan_spilled(spill.name, at, lines)

    # ---- the frame

    def frame_entries(self) -> list[bytes]:
        """The round as entries of one frame, the positions of the rings last."""
        entries: list[bytes] = []
        for log in self.logs:
            entries += log.frame_entries()
        if self.subscribers or self.forgotten:
            by_key = self._cursors.by_key
            forgotten = {subscriber.key for subscriber in self.forgotten}
            # Not what the round has put something else in the place of.
            self.subscribers = {
                subscriber: None
                for subscriber in self.subscribers
                if by_key.get(subscriber.key) is subscriber and subscriber.key not in forgotten
            }
            entries += [subscriber.frame_entry() for subscriber in self.subscribers]
            entries += [entry.encode(entry.FORGET, *key) for key in forgotten]
        entries += [entry.encode(entry.DELETE, name, value=number) for name, number in self.deleted.items()]
        for port in self.ports:
            entries.append(port.frame_entry())
        return entries

    def add_cursors(self, cursors: list[Cursor]) -> None:
        """Put cursors that moved in their slots into the frame, but none that was forgotten since."""
        by_key = self._cursors.by_key
        for cursor in cursors:
            subscriber = cursor.subscriber
            if by_key.get(subscriber.key) is subscriber:
                self.subscribers[subscriber] = None
