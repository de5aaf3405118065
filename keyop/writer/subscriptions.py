"""Opening, moving and closing subscriptions: who may hold a cursor, and where a new one begins."""

from __future__ import annotations

from pathlib import Path

from keyop.errors import SharedMemoryError
from keyop.ipc.slot import Slot
from keyop.protocol import entry, reply
from keyop.protocol.entry import Entry
from keyop.storage.channel_log import ChannelLog
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import load_offset
from keyop.storage.segments import align_offset
from keyop.writer.attached import AttachedPort
from keyop.writer.channels import Channels, sort
from keyop.writer.cursors import Cursor, Cursors
from keyop.writer.log import Log
from keyop.writer.refused import Later, Refused, Wait


class Subscriptions:
    """What entries of the kinds OPEN, CURSOR, CLOSE, FORGET and SET do to the table of cursors."""

    def __init__(self, directory: DataDirectory, channels: Channels, cursors: Cursors, log: Log) -> None:
        self._directory = directory
        self._channels = channels
        self._cursors = cursors
        self._log = log

    # ---- checks

    def check_open(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` while a live process holds the id, `Later` until a dead one's port is swept."""
        _part, parts, slot = entry.OPENING.unpack(item.data)
        if parts != 1 or slot >= port.port.slot_count():
            raise Refused(reply.MALFORMED)
        try:
            port.port.slot(slot)
        except SharedMemoryError as error:
            raise Refused(reply.OTHER) from error
        cursor = self._cursors.by_key.get((item.channel, item.id))
        if cursor is None:
            self._load(item.channel, item.id, item.flags)
            return
        holder = self._holder(cursor)
        if holder is None or holder is port:
            return  # its own: an earlier writer died between granting and answering
        if holder.is_alive():
            raise Refused(reply.BUSY, holder.port.pid)
        holder.dead = True
        raise Later

    def check_move(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` for a cursor that the port does not hold, or whose old value is not the current one."""
        key = (item.channel, item.id)
        self._take_up_passed_over(port, self._cursors.by_key.get(key))
        cursor = self._cursors.by_key.get(key)
        if cursor is None or cursor.holder is not port:
            raise Refused(reply.NOT_HELD)
        old, _moves = entry.CURSOR_MOVE.unpack(item.data)
        if cursor.exactly_once and cursor.planned != old:
            raise Refused(reply.STALE_CURSOR, cursor.planned)

    def check_close(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Wait`. What the port does not hold may be closed: that comes to nothing."""
        self._take_up_passed_over(port, self._cursors.by_key.get((item.channel, item.id)))

    def _take_up_passed_over(self, port: AttachedPort, cursor: Cursor | None) -> None:
        """At the start another slot was taken for the holder's, or this one was being left. Raises `Wait`."""
        if cursor is None or (cursor.holder is not port and self._holder(cursor) is None):
            self.adopt(port, granted=True)

    def check_unheld(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` while another live process holds the id."""
        cursor = self._cursors.by_key.get((item.channel, item.id))
        holder = self._holder(cursor) if cursor is not None else None
        if holder is None or (holder is port and item.kind == entry.FORGET):
            return
        if holder.is_alive():
            raise Refused(reply.BUSY, holder.port.pid)
        holder.dead = True
        raise Later

    def _holder(self, cursor: Cursor) -> AttachedPort | None:
        """Who holds a cursor, as his slot says.

        The last writer may have been killed when it had committed that a process gives a subscription up, and before
        that one knew: then its slot was taken up at the start. And who was told that his question came to nothing may
        be granted it afterwards.
        """
        holder, slot = cursor.holder, cursor.slot
        if holder is not None and slot is not None and _is_given_up(slot, cursor):
            self._cursors.let_go(cursor)
            self._unfollow(holder, cursor.key[0])
        return cursor.holder

    def release_given_up(self) -> bool:
        """Let go what was taken up at the start and has been given up since; whether there was any."""
        given_up = [
            cursor
            for cursor in self._cursors.held
            if cursor.taken_up and cursor.slot is not None and _is_given_up(cursor.slot, cursor)
        ]
        for cursor in given_up:
            self._holder(cursor)
        return bool(given_up)

    # ---- changes

    def open(self, port: AttachedPort, item: Entry, log: ChannelLog) -> Cursor:
        """Grant the subscription: its cursor, from the table, its file, or where the subscriber asked to begin."""
        cursor = self._cursors.by_key.get((item.channel, item.id))
        if cursor is None:
            start = log.planned_end if item.flags & entry.AT_LATEST else self._align(item, log, item.value)
            cursor = self._cursors.add((item.channel, item.id), start)
        elif cursor.planned > log.planned_end or cursor.planned < log.end:
            cursor.planned = self._align(item, log, cursor.planned)
        cursor.flags = item.flags & entry.EXACTLY_ONCE
        cursor.moves += 1
        _part, _parts, slot = entry.OPENING.unpack(item.data)
        self._cursors.hold(cursor, port, port.port.slot(slot))
        log.followers.add(port)
        return cursor

    def _load(self, channel: bytes, id: bytes, flags: int) -> Cursor | None:
        """Bring the cursor of an id that subscribed before into the table. Raises `Refused` and `Wait`."""
        path = self._cursors.path((channel, id))
        try:
            self._cursors.remove_forgotten()
            parsed = load_offset(path)
        except OSError as error:
            raise Wait(error) from error
        if parsed is None:
            return None
        if parsed.damaged:
            if flags & entry.EXACTLY_ONCE:
                raise Refused(reply.OFFSET_DAMAGED)
            self._log.warning("offset_damaged", file=path, why=parsed.damaged, counts_as=0)
        cursor = self._cursors.add((channel, id), parsed.value)
        if parsed.ours and not parsed.damaged:
            cursor.filed = parsed.value
        return cursor

    def adopt(self, port: AttachedPort, *, granted: bool) -> None:
        """At a start: take up what a port that outlived the last writer holds.

        Of a slot that was granted this is sure. One that is not marked so may have been granted without its process
        having seen the answer: it counts if nobody else holds the id and the cursor exists. Raises `Wait`, and may be
        called again then.
        """
        for slot in self._slots(port):
            if _has_left(slot, port):
                continue
            # The second look takes granted ones, too: their answers may have been seen in between. A dead process that
            # has not seen its answer has handled nothing.
            if slot.granted or not (granted or port.dead):
                adopted = self._adopt_slot(slot)
                if adopted is not None:
                    cursor, log = adopted
                    self._cursors.hold(cursor, port, slot)
                    cursor.taken_up = True
                    log.followers.add(port)

    def hear(self, port: AttachedPort) -> None:
        """At a start: the last words of a process that is dead. Raises `Wait`, and may be called again then.

        They come first. Whether it holds its ids comes last: the last writer may have been killed when it had buried
        it and had granted them to another one, and before its port was swept.
        """
        for slot in self._slots(port):
            if slot.granted and not _has_left(slot, port):
                self._adopt_slot(slot)

    def _slots(self, port: AttachedPort) -> list[Slot]:
        """Those in use. What is damaged costs its own subscription; it must not end one writer after the other."""
        slots = []
        for index in range(port.port.slot_count()):
            try:
                slot = port.port.slot(index)
            except SharedMemoryError as error:
                self._log.error("slots_lost", port=port.name, why=error)
                break
            if slot.in_use and slot.sound:
                slots.append(slot)
            elif slot.in_use:
                self._log.error("slot_damaged", port=port.name, slot=index)
        return slots

    def _adopt_slot(self, slot: Slot) -> tuple[Cursor, ChannelLog] | None:
        """Take over what a slot says if that is news; None if its id is held, or gone."""
        channel, id = slot.names()
        try:
            cursor = self._cursors.by_key.get((channel, id)) or self._load(channel, id, slot.flags)
            if cursor is None or cursor.holder is not None:
                return None
            log = self._channels.open(channel)
        except Refused as trouble:
            self._log.warning("subscription_not_adopted", channel=channel.decode(), id=id.decode(), why=trouble)
            return None
        cursor.flags = slot.flags
        claim = slot.cursor()
        if claim is not None and claim.moves <= cursor.moves:
            claim = None
        if claim is not None and not cursor.exactly_once:
            offset = claim.offset
            if not cursor.moves:
                # The file may be ahead: a dead letter moved it, and its subscriber has not heard of the commit yet.
                offset = max(offset, cursor.offset)
            cursor.offset = cursor.planned = min(offset, log.end)
            self._cursors.unfiled.add(cursor)
        if claim is not None:
            cursor.moves, cursor.attempts_offset, cursor.attempts = claim.moves, claim.offset, claim.attempts
        return cursor, log

    def _align(self, item: Entry, log: ChannelLog, offset: int) -> int:
        """Where an offset may stand. What this round has planned is whole by construction."""
        if log.end <= offset <= log.planned_end and log.chunks:
            return offset
        aligned, why = _aligned(log.directory, offset)
        if why:
            path = self._cursors.path((item.channel, item.id))
            self._log.warning("offset_moved", file=path, old=offset, new=aligned, why=why)
        return aligned

    def move(self, item: Entry) -> Cursor:
        """A move by transaction."""
        cursor = self._cursors.by_key[item.channel, item.id]
        _old, moves = entry.CURSOR_MOVE.unpack(item.data)
        if moves > cursor.moves or cursor.exactly_once:
            cursor.planned = item.value
            # Not beyond the slot's own count, or its next store would not be believed.
            cursor.moves = max(moves, cursor.moves)
            if cursor.attempts_offset < item.value:
                cursor.attempts = 0  # else they are of a message behind this move, under way already
        return cursor

    def close(self, port: AttachedPort, item: Entry) -> Cursor | None:
        """The process gives a subscription up: take its slot's last word."""
        cursor = self._cursors.by_key.get((item.channel, item.id))
        if cursor is None or cursor.holder is not port:
            return None
        self._last_word(cursor)
        self._cursors.let_go(cursor)
        self._unfollow(port, item.channel)
        return cursor

    def bury(self, port: AttachedPort) -> list[Cursor]:
        """The process died: take the last word of every slot it held."""
        mourned = [cursor for cursor in self._cursors.held if cursor.holder is port]
        for cursor in mourned:
            self._last_word(cursor)
            self._cursors.let_go(cursor)
        for log in self._channels.by_name.values():
            log.followers.discard(port)
        return mourned

    @staticmethod
    def _last_word(cursor: Cursor) -> None:
        assert cursor.slot is not None
        claim = cursor.slot.cursor()
        if claim is not None:
            cursor.adopt(claim)

    def follow(self, port: AttachedPort, item: Entry, log: ChannelLog) -> None:
        """The process wants to be posted when the channel grows, or not any more."""
        if item.value:
            port.follows.add(item.channel)
            log.followers.add(port)
        else:
            port.follows.discard(item.channel)
            self._unfollow(port, item.channel)

    def _unfollow(self, port: AttachedPort, channel: bytes) -> None:
        if channel not in port.follows and not any(
            cursor.holder is port and cursor.key[0] == channel for cursor in self._cursors.held
        ):
            self._channels.by_name[channel].followers.discard(port)

    def forgotten(self, item: Entry) -> list[Cursor]:
        """The cursor to forget; one that only stands in a file is loaded for it."""
        key = (item.channel, item.id)
        cursor = self._cursors.by_key.get(key) or self._cursors.add(key, 0)
        holder = cursor.holder
        if holder is not None:
            self._cursors.let_go(cursor)
            self._unfollow(holder, item.channel)
        return [cursor]

    def set(self, item: Entry) -> Cursor:
        """Move an unheld cursor by command."""
        key = (item.channel, item.id)
        offset = _aligned(self._directory.channel(item.channel.decode()), item.value)[0]
        cursor = self._cursors.by_key.get(key) or self._cursors.add(key, 0)
        cursor.planned = offset
        cursor.moves += 1
        cursor.attempts = 0
        return cursor


def _has_left(slot: Slot, port: AttachedPort) -> bool:
    """Whether it is committed that a slot is given up: its process said so before, and nothing is left in its ring.

    Or the process is between the two, and says so to this writer: then its last word is heard (`check_close`).
    """
    return slot.leaving and port.drained


def _is_given_up(slot: Slot, cursor: Cursor) -> bool:
    """Whether nothing stands in a slot, or something else. What is damaged says nothing."""
    if slot.in_use:
        return slot.sound and slot.names() != cursor.key
    return slot.is_free or slot.is_peer or slot.is_published


def _aligned(directory: Path, offset: int) -> tuple[int, str | None]:
    try:
        return align_offset(directory, offset)
    except OSError as error:
        raise sort(error) from error
