"""What transactions do to the writer's table of cursors: who may hold one, and where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import Channel, align
from torturing.models.commit_path.cursors import Cursor, Cursors
from torturing.models.commit_path.entries import Close, Key, Move, Open, Set
from torturing.models.commit_path.memory import Port, Slot

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

GRANTED = "granted"
BUSY, STALE, NOT_HELD, WRONG, SPILL_DAMAGED = "busy", "stale", "not held", "wrong", "spill damaged"


class RefusedError(Exception):
    """Something is wrong with a transaction; none of it takes effect."""

    def __init__(self, code: str, value: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.value = value


class LaterError(Exception):
    """Another port has to be drained and swept first."""


class Subscriptions:
    """Checks change nothing; what follows them cannot fail."""

    def __init__(self, world: World, cursors: Cursors) -> None:
        self._world = world
        self._cursors = cursors

    # ---- checks

    def check_open(self, port: Port, item: Open) -> None:
        """Refused while a living process holds the id; later until a dead one's port is swept."""
        cursor = self._cursors.by_key.get(item.key)
        if cursor is None:
            self._cursors.load(item.key)
            return
        holder = cursor.holder
        if holder is None or holder is port:
            return
        if holder.alive:
            raise RefusedError(BUSY)
        raise LaterError

    def check_move(self, port: Port, item: Move) -> None:
        """Refused where the port does not hold the cursor, or the old value is not the current one."""
        self._take_up_passed_over(port, item.key)
        cursor = self._cursors.by_key.get(item.key)
        if cursor is None or cursor.holder is not port:
            raise RefusedError(NOT_HELD)
        if cursor.exactly_once and cursor.planned != item.old and self._world.rules.stale_moves_refused:
            raise RefusedError(STALE, cursor.planned)

    def check_unheld(self, port: Port, command: Set | Close) -> None:
        """Refused while another living process holds the id."""
        cursor = self._cursors.by_key.get(command.key)
        holder = cursor.holder if cursor is not None else None
        if holder is None or (holder is port and type(command) is Close):
            return
        if holder.alive:
            raise RefusedError(BUSY)
        raise LaterError

    # ---- changes

    def open(self, port: Port, item: Open, channel: Channel) -> Cursor:
        """Grant a subscription. New ones begin with the earliest message."""
        cursor = self._cursors.by_key.get(item.key)
        if cursor is None:
            cursor = self._cursors.add(item.key, align(channel.directory, 0))
        elif cursor.planned > channel.planned_end or cursor.planned < channel.end:
            cursor.planned = align(channel.directory, cursor.planned)
        cursor.exactly_once = item.exactly_once
        cursor.moves += 1
        cursor.holder = port
        cursor.slot = port.slot
        return cursor

    def move(self, item: Move) -> Cursor:
        """A move by transaction."""
        cursor = self._cursors.by_key[item.key]
        if item.moves > cursor.moves or cursor.exactly_once:
            cursor.planned = item.new
            cursor.moves = max(item.moves, cursor.moves)
            if cursor.attempts_offset < item.new:
                cursor.attempts = 0
        return cursor

    def close(self, port: Port, item: Close) -> Cursor | None:
        """A process gives a subscription back: its slot's last word counts."""
        self._take_up_passed_over(port, item.key)
        cursor = self._cursors.by_key.get(item.key)
        if cursor is None or cursor.holder is not port:
            return None
        self._cursors.take_last_word(cursor)
        cursor.holder = cursor.slot = None
        return cursor

    def to_forget(self, item: Close) -> Cursor:
        """The cursor that is to be deleted."""
        cursor = self._cursors.by_key.get(item.key) or self._cursors.add(item.key, 0)
        cursor.holder = cursor.slot = None
        return cursor

    def set(self, item: Set, channel: Channel) -> Cursor:
        """Move a cursor by command."""
        cursor = self._cursors.by_key.get(item.key) or self._cursors.add(item.key, 0)
        cursor.planned = align(channel.directory, item.offset)
        cursor.moves += 1
        cursor.attempts = 0
        return cursor

    def bury(self, port: Port) -> list[Cursor]:
        """The process died: the last word of its slot."""
        mourned = [cursor for cursor in self._cursors.by_key.values() if cursor.holder is port]
        for cursor in mourned:
            self._cursors.take_last_word(cursor)
            cursor.holder = cursor.slot = None
        return mourned

    # ---- who holds what

    def adopt_all(self, ports: list[Port]) -> None:
        """At a start: take up what outlived the last writer. First granted slots, then all: one may be granted between
        the two looks. The dead come last: the last writer may have buried them already, and granted their ids anew."""
        rules = self._world.rules
        if not rules.slots_adopted:
            return
        dead = [port for port in ports if not port.alive] if rules.living_before_dead else []
        living = [port for port in ports if port not in dead]
        for port in dead:
            if port.slot is not None and port.slot.granted and not self._has_left(port):
                self._hear(port.slot)
        for granted in (True, False):
            for port in living:
                self._adopt(port, granted=granted)
        for port in dead:
            self._adopt(port, granted=True)

    def _take_up_passed_over(self, port: Port, key: Key) -> None:
        """At the start another slot was taken for the holder's, or this one was being left."""
        cursor = self._cursors.by_key.get(key)
        if cursor is None or cursor.holder is None:
            self._adopt(port, granted=True)

    def _has_left(self, port: Port) -> bool:
        """Whether it is committed that a slot is given up."""
        slot = port.slot
        assert slot is not None
        rules = self._world.rules
        return slot.is_leaving and port.committed == port.head and rules.left_slot_holds_nothing

    def _adopt(self, port: Port, *, granted: bool) -> None:
        slot = port.slot
        if slot is None or not (slot.granted or not (granted or not port.alive)) or self._has_left(port):
            return
        cursor = self._hear(slot)
        if cursor is not None:
            cursor.holder = port
            cursor.slot = slot

    def _hear(self, slot: Slot) -> Cursor | None:
        """Take over what a slot says if that is news; None if its id is held, or gone."""
        cursor = self._cursors.by_key.get(slot.key) or self._cursors.load(slot.key)
        if cursor is None or cursor.holder is not None:
            return None
        end = self._world.writer.channel(slot.key[0]).end
        cursor.exactly_once = slot.exactly_once
        claim = slot.cursor
        if claim is None or claim.moves <= cursor.moves:
            return cursor
        if not cursor.exactly_once:
            # The file may be ahead: a dead letter moved it, and its subscriber has not heard of it yet.
            offset = claim.offset if cursor.moves else max(claim.offset, cursor.offset)
            cursor.offset = cursor.planned = min(offset, end)
            self._cursors.unfiled.add(cursor)
        cursor.moves, cursor.attempts_offset, cursor.attempts = claim.moves, claim.offset, claim.attempts
        return cursor
