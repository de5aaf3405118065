"""Opening, moving and closing subscriptions: who may hold a cursor, and where a new one begins."""

from __future__ import annotations

from pathlib import Path

from keyop.errors import SharedMemoryError
from keyop.ipc.layout import ROLE_CLIENT, ROLE_HUB
from keyop.ipc.slot import Slot
from keyop.protocol import entry, reply
from keyop.protocol.entry import Entry
from keyop.storage.channel_log import ChannelLog
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import load_offset
from keyop.storage.parts import PARTS_SUFFIX, load_parts, places
from keyop.storage.segments import align_offset
from keyop.writer.attached import AttachedPort
from keyop.writer.channels import Channels, sort
from keyop.writer.cursor import Cursor, Subscriber
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.refused import Later, Refused, Wait


class Subscriptions:
    """What entries of the kinds OPEN, CURSOR, CLOSE, FORGET and SET do to the table of cursors."""

    def __init__(self, directory: DataDirectory, channels: Channels, cursors: Cursors, log: Log) -> None:
        self._directory = directory
        self._channels = channels
        self._cursors = cursors
        self._log = log
        # Channels that were deleted by what the journal says; used at the start.
        self.deleted: set[bytes] = set()

    # ---- checks

    def check_open(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` while a live process is in the way, `Later` until a dead one's port is swept.

        In the way of a part is who holds it, and in the way of another number of parts who holds any.
        """
        part, count, slot = entry.OPENING.unpack(item.data)
        if not part < count <= entry.MAX_PARTS or slot >= port.port.slot_count():
            raise Refused(reply.MALFORMED)
        if count > 1 and item.flags & entry.EXACTLY_ONCE:
            raise Refused(reply.MALFORMED)
        try:
            port.port.slot(slot)
        except SharedMemoryError as error:
            raise Refused(reply.OTHER) from error
        subscriber = self._cursors.by_key.get((item.channel, item.id))
        if subscriber is None:
            self._load(item.channel, item.id, item.flags)
        elif len(subscriber.cursors) == count:
            # The port's own: an earlier writer died between granting and answering.
            self._refuse_unless_free(subscriber.cursors[part], or_held_by=port)
        else:
            for cursor in subscriber.cursors:
                self._refuse_unless_free(cursor)

    def _refuse_unless_free(self, cursor: Cursor, or_held_by: AttachedPort | None = None) -> None:
        holder = self._holder(cursor)
        if holder is None or holder is or_held_by:
            return
        if holder.is_alive():
            raise Refused(reply.BUSY, reply.busy(holder.port.pid, cursor.part, len(cursor.subscriber.cursors)))
        holder.dead = True
        raise Later

    def check_move(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` for a cursor that the port does not hold, or whose old value is not the current one."""
        key = (item.channel, item.id)
        old, _moves, part = entry.CURSOR_MOVE.unpack(item.data)
        self._take_up_passed_over(port, self._cursors.find(key, part))
        cursor = self._cursors.find(key, part)
        if cursor is None or cursor.holder is not port:
            raise Refused(reply.NOT_HELD)
        if cursor.subscriber.exactly_once and cursor.planned != old:
            raise Refused(reply.STALE_CURSOR, cursor.planned)

    def check_close(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Wait`. What the port does not hold may be closed: that comes to nothing."""
        self._take_up_passed_over(port, self._cursors.find((item.channel, item.id), item.value))

    def _take_up_passed_over(self, port: AttachedPort, cursor: Cursor | None) -> None:
        """At the start another slot was taken for the holder's, or this one was being left. Raises `Wait`."""
        if cursor is None or (cursor.holder is not port and self._holder(cursor) is None):
            self.adopt(port, granted=True)

    def check_unheld(self, port: AttachedPort, item: Entry) -> None:
        """Raises `Refused` while another live process holds the id, `Later` until a dead one's port is swept."""
        subscriber = self._cursors.by_key.get((item.channel, item.id))
        if subscriber is None or (item.kind == entry.FORGET and self._holds(port, item)):
            return
        for cursor in subscriber.cursors:
            self._refuse_unless_free(cursor)

    def _holds(self, port: AttachedPort, item: Entry) -> bool:
        cursor = self._cursors.find((item.channel, item.id), item.value)
        return cursor is not None and self._holder(cursor) is port

    def check_delete(self, item: Entry) -> None:
        """Raises `Refused` while a live process holds a cursor of the channel, `Later` until a dead one is swept.

        With FORCE a subscriber is no hindrance: it is told, and begins anew. Hub and client are stopped first.
        """
        for cursor in [cursor for cursor in self._cursors.held if cursor.subscriber.key[0] == item.channel]:
            holder = self._holder(cursor)
            if holder is None:
                continue
            if not holder.is_alive():
                holder.dead = True
                raise Later
            if not item.flags & entry.FORCE or holder.port.role in (ROLE_HUB, ROLE_CLIENT):
                raise Refused(reply.BUSY, holder.port.pid)

    def drop_channel(self, channel: bytes) -> set[AttachedPort]:
        """A channel is deleted: its cursors go, and who held one is told. Which ports are to be woken."""
        held = self._cursors.drop_channel(channel)
        losers = set()
        for cursor in held:
            holder = cursor.holder
            assert holder is not None
            assert cursor.slot is not None
            holder.lose_cursor(cursor.slot.index)
            self._cursors.let_go(cursor)
            losers.add(holder)
        return losers

    def _holder(self, cursor: Cursor) -> AttachedPort | None:
        """Who holds a cursor, as his slot says.

        The last writer may have been killed when it had committed that a process gives a subscription up, and before
        that one knew: then its slot was taken up at the start. And who was told that his question came to nothing may
        be granted it afterwards.
        """
        holder, slot = cursor.holder, cursor.slot
        if holder is not None and slot is not None and _is_given_up(slot, cursor):
            self._cursors.let_go(cursor)
            self._unfollow(holder, cursor.subscriber.key[0])
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
        key = (item.channel, item.id)
        part, count, slot = entry.OPENING.unpack(item.data)
        subscriber = self._cursors.by_key.get(key)
        if subscriber is None:
            start = log.planned_end if item.flags & entry.AT_LATEST else self._align(item, log, item.value)
            subscriber = self._cursors.add(key, [start] * count)
        elif len(subscriber.cursors) != count:
            subscriber = self._divide(subscriber, count)
        cursor: Cursor = subscriber.cursors[part]
        if cursor.planned > log.planned_end or cursor.planned < log.end:
            cursor.planned = self._align(item, log, cursor.planned)
        subscriber.flags = item.flags & entry.EXACTLY_ONCE
        cursor.moves += 1
        self._cursors.hold(cursor, port, port.port.slot(slot))
        port.lost_slots.discard(slot)
        log.followers.add(port)
        return cursor

    def _divide(self, subscriber: Subscriber, count: int) -> Subscriber:
        """Another number of processes is to share the work: all go on from the least offset."""
        before = len(subscriber.cursors)
        divided = self._cursors.divide(subscriber, count)
        if any(cursor.planned != divided.planned for cursor in subscriber.cursors):
            self._log.warning(
                "parts_divided_anew",
                file=subscriber.path,
                parts=count,
                before=before,
                goes_on_at=divided.planned,
                note="messages behind that may come again",
            )
        return divided

    def _load(self, channel: bytes, id: bytes, flags: int) -> Subscriber | None:
        """Bring the cursors of an id that subscribed before into the table. Raises `Refused` and `Wait`."""
        path = self._cursors.path((channel, id))
        parts_path = path.with_suffix(PARTS_SUFFIX)
        try:
            self._cursors.remove_forgotten()
            parsed = load_offset(path)
            parts = load_parts(parts_path)
        except OSError as error:
            raise Wait(error) from error
        if parsed is None:
            return None
        if parsed.damaged:
            if flags & entry.EXACTLY_ONCE:
                raise Refused(reply.OFFSET_DAMAGED)
            self._log.warning("offset_damaged", file=path, why=parsed.damaged, counts_as=0)
        offsets, why = places(parsed.value, parts)
        if why:
            self._log.warning("parts_do_not_count", file=parts_path, why=why, goes_on_at=parsed.value)
        subscriber = self._cursors.add((channel, id), offsets)
        if parsed.ours and not parsed.damaged and not why:
            subscriber.filed = offsets
        return subscriber

    def adopt(self, port: AttachedPort, *, granted: bool) -> None:
        """At a start: take up what a port that outlived the last writer holds.

        Of a slot that was granted this is sure. One that is not marked so may have been granted without its process
        having seen the answer: it counts if nobody else holds the id and the cursor exists. Raises `Wait`, and may be
        called again then.
        """
        for slot in self._slots(port):
            # Another part of the id may have begun anew on the channel that has the name now.
            if _has_left(slot, port) or slot.index in port.lost_slots:
                continue
            # The second look takes granted ones, too: their answers may have been seen in between. A dead process that
            # has not seen its answer has handled nothing.
            if slot.granted or not (granted or port.dead):
                adopted = self._adopt_slot(slot, sure=slot.granted and not port.dead)
                if adopted is not None:
                    cursor, log = adopted
                    self._cursors.hold(cursor, port, slot)
                    cursor.taken_up = True
                    log.followers.add(port)
                elif slot.granted and slot.names()[0] in self.deleted:
                    # The last writer was killed when it had committed that, and before it could say so.
                    port.lose_cursor(slot.index)

    def hear(self, port: AttachedPort) -> None:
        """At a start: the last words of a process that is dead. Raises `Wait`, and may be called again then.

        They come first. Whether it holds its ids comes last: the last writer may have been killed when it had buried
        it and had granted them to another one, and before its port was swept.
        """
        for slot in self._slots(port):
            if slot.granted and not _has_left(slot, port):
                self._adopt_slot(slot, sure=False)

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

    def _adopt_slot(self, slot: Slot, *, sure: bool) -> tuple[Cursor, ChannelLog] | None:
        """Take over what a slot says if that is news; None if its id is held, gone, or divided otherwise.

        ``sure``: what its process holds it was granted. Where the file that would say so is damaged, it decides how
        many parts there are.
        """
        channel, id, part, count = slot.place()
        try:
            subscriber = self._cursors.by_key.get((channel, id)) or self._load(channel, id, slot.flags)
            if subscriber is None:
                return None
            if len(subscriber.cursors) != count:
                if not sure or any(cursor.moves or cursor.holder is not None for cursor in subscriber.cursors):
                    return None
                subscriber = self._cursors.divide(subscriber, count)
            cursor = subscriber.cursors[part]
            if cursor.holder is not None:
                return None
            log = self._channels.open(channel)
        except Refused as trouble:
            self._log.warning("subscription_not_adopted", channel=channel.decode(), id=id.decode(), why=trouble)
            return None
        subscriber.flags = slot.flags
        claim = slot.cursor()
        if claim is not None and claim.moves <= cursor.moves:
            claim = None
        if claim is not None and not subscriber.exactly_once:
            offset = claim.offset
            if not cursor.moves:
                # The file may be ahead: a dead letter moved it, and its subscriber has not heard of the commit yet.
                offset = max(offset, cursor.offset)
            cursor.offset = cursor.planned = min(offset, log.end)
            self._cursors.unfiled.add(subscriber)
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
        _old, moves, part = entry.CURSOR_MOVE.unpack(item.data)
        cursor: Cursor = self._cursors.by_key[item.channel, item.id].cursors[part]
        if moves > cursor.moves or cursor.subscriber.exactly_once:
            cursor.planned = item.value
            # Not beyond the slot's own count, or its next store would not be believed.
            cursor.moves = max(moves, cursor.moves)
            if cursor.attempts_offset < item.value:
                cursor.attempts = 0  # else they are of a message behind this move, under way already
        return cursor

    def close(self, port: AttachedPort, item: Entry) -> Cursor | None:
        """The process gives a subscription up: take its slot's last word."""
        cursor = self._cursors.find((item.channel, item.id), item.value)
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
            cursor.holder is port and cursor.subscriber.key[0] == channel for cursor in self._cursors.held
        ):
            self._channels.by_name[channel].followers.discard(port)

    def is_shared(self, port: AttachedPort, item: Entry) -> bool:
        """Whether others hold parts of what a process wants forgotten: then it only gives its own part up."""
        subscriber = self._cursors.by_key.get((item.channel, item.id))
        if subscriber is None:
            return False
        holders = {cursor.part: self._holder(cursor) for cursor in subscriber.cursors}
        holders.pop(item.value, None)
        return any(holder is not None for holder in holders.values())

    def forgotten(self, item: Entry) -> Subscriber:
        """The subscriber to forget; one that only stands in a file is loaded for it."""
        key = (item.channel, item.id)
        subscriber = self._cursors.by_key.get(key) or self._cursors.add(key, [0])
        for cursor in subscriber.cursors:
            holder = cursor.holder
            if holder is not None:
                self._cursors.let_go(cursor)
                self._unfollow(holder, item.channel)
        return subscriber

    def set(self, item: Entry) -> Subscriber:
        """Move an unheld subscriber by command, all of its parts to the same place."""
        key = (item.channel, item.id)
        offset = _aligned(self._directory.channel(item.channel.decode()), item.value)[0]
        subscriber = self._cursors.by_key.get(key) or self._cursors.add(key, [0])
        if len(subscriber.cursors) > 1:
            subscriber = self._cursors.divide(subscriber, 1)
        (cursor,) = subscriber.cursors
        cursor.planned = offset
        cursor.moves += 1
        cursor.attempts = 0
        return subscriber


def _has_left(slot: Slot, port: AttachedPort) -> bool:
    """Whether it is committed that a slot is given up: its process said so before, and nothing is left in its ring.

    Or the process is between the two, and says so to this writer: then its last word is heard (`check_close`).
    """
    return slot.leaving and port.drained


def _is_given_up(slot: Slot, cursor: Cursor) -> bool:
    """Whether nothing stands in a slot, or something else. What is damaged says nothing."""
    if slot.in_use:
        return slot.sound and slot.place() != cursor.place
    return slot.is_free or slot.is_peer or (slot.is_published and slot.place() != cursor.place)


def _aligned(directory: Path, offset: int) -> tuple[int, str | None]:
    try:
        return align_offset(directory, offset)
    except OSError as error:
        raise sort(error) from error
