"""A cursor that this process holds: the writer has granted it, and it stands in a slot of the process's port.

Subscribers and federation peers are the same here: a channel, an id, and how far it has come. The file is the writer's.
"""

from __future__ import annotations

from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError, PublishTimeout
from keyop.ipc.histogram import Histogram
from keyop.protocol import entry, reply


class Granted(NamedTuple):
    """What the writer knew of the cursor when it granted it."""

    offset: int
    attempts: int
    """Attempts that a predecessor began at the message at ``attempts_offset``."""
    attempts_offset: int


class HeldCursor:
    """`open` it, `move` it, `close` it. ``moves`` counts the stores: of two claims the one with more is the truth."""

    __slots__ = (
        "_attachment",
        "_flags",
        "_generation",
        "_histograms",
        "_slot",
        "channel",
        "id",
        "is_open",
        "key",
        "moves",
        "part",
        "parts",
        "store",
    )

    def __init__(self, attachment: Attachment, channel: str, id: str, part: int = 0, parts: int = 1) -> None:
        """``part``, counted from 0, is for one of several processes that share the work of the id."""
        self._attachment = attachment
        self.channel = channel
        self.id = id
        self.key = (channel.encode(), id.encode())
        self.part = part
        self.parts = parts
        self.moves = 0
        self.is_open = False
        self._histograms: dict[int, Histogram] = {}

    def open(self, start: int | None, *, exactly_once: bool = False, deadline: float | None = None) -> Granted:
        """Have the writer grant it; ``start`` is for a new id, None is the channel's end.

        Raises `SubscriberBusy`, `OffsetDamaged`, `WriterUnavailable`, `PublishTimeout`.
        """
        self._flags = flags = entry.EXACTLY_ONCE if exactly_once else 0
        self._generation = self._attachment.generation
        self._slot = self._attachment.take_slot(*self.key, flags, self.part, self.parts)
        try:
            if start is None:
                flags |= entry.AT_LATEST
            opening = entry.OPENING.pack(self.part, self.parts, self._slot.index)
            item = entry.encode(entry.OPEN, *self.key, flags=flags, value=start or 0, data=opening)
            answer = self._attachment.transact(transaction(item), self.channel, deadline)
            offset, moves, attempts, attempts_offset = answer
        except PublishTimeout:
            # It may still be granted: the slot stays, the writer may be looking at it.
            self._attachment.try_send(transaction(entry.encode(entry.CLOSE, *self.key, value=self.part)))
            raise
        except Exception:
            self._slot.vacate()
            raise
        except BaseException:
            # Interrupted, and perhaps granted: the slot stays, the writer may be looking at it.
            self._attachment.send(transaction(entry.encode(entry.CLOSE, *self.key, value=self.part)))
            raise
        self.moves = moves
        self.store = self._slot.cursor_writer()
        self.move(offset, attempts if attempts_offset == offset else 0)
        self._slot.grant()
        self.is_open = True
        return Granted(offset, attempts, attempts_offset)

    def move(self, offset: int, attempts: int = 0) -> None:
        """Store where the next message begins, and the attempts begun at it."""
        self.moves += 1
        self.store(self.moves, offset, attempts)

    def move_entry(self, old: int, new: int) -> bytes:
        """A move as part of a transaction, which is refused if the cursor is not at ``old``."""
        self.moves += 1  # a store that follows counts more
        data = entry.CURSOR_MOVE.pack(old, self.moves, self.part)
        return entry.encode(entry.CURSOR, *self.key, flags=self._flags, value=new, data=data)

    def refresh(self) -> bool:
        """Shared memory may have been made anew under it; whether it was: then `move` has to be called."""
        if self._attachment.generation == self._generation:
            return False
        self._generation = self._attachment.generation
        self._slot = self._attachment.slot(self._slot.index)
        self.store = self._slot.cursor_writer()
        self._move_histograms()
        return True

    def _move_histograms(self) -> None:
        for which, histogram in self._histograms.items():
            self._slot.move_histogram(which, histogram)

    def is_granted(self, offset: int) -> bool:
        """Ask the writer whether this process still holds it, and stands at ``offset``. Raises as `Attachment.wait`."""
        position = self._attachment.send(transaction(self.move_entry(offset, offset)))
        self._attachment.wait(position)
        return all(code != reply.NOT_HELD for code, _value in self._attachment.replies.answers(position))

    def reopen(self, start: int) -> Granted:
        """Its channel was deleted: have it granted on the one that has that name now. Raises as `open`."""
        self._vacate()
        granted = self.open(start, exactly_once=bool(self._flags & entry.EXACTLY_ONCE))
        self._move_histograms()
        return granted

    def count(self, name: str, total: int) -> None:
        """Store a counter's new total, see `layout.SLOT_COUNTER_NAMES`."""
        self._slot.count(name, total)

    def histogram(self, which: int) -> Histogram:
        """One of `layout.SLOT_TIMES`, to be counted in once the cursor is open."""
        return self._histograms.setdefault(which, self._slot.histogram(which))

    def close(self, *, forget: bool = False, deadline: float | None = None) -> None:
        """Give it back to the writer, with its last word; ``forget`` deletes it.

        Raises `PublishTimeout` if the writer does not commit it in time.
        """
        kind = entry.FORGET if forget else entry.CLOSE
        if not self.is_open:
            return
        item = entry.encode(kind, *self.key, value=self.part)
        self._slot.leave()
        try:
            self._attachment.transact(transaction(item), self.channel, deadline)
        except PublishTimeout:
            raise  # the slot stays taken: the writer has not read its last word yet
        except KeyopError:
            self._vacate()
            raise
        self._vacate()

    def _vacate(self) -> None:
        if self.is_open:
            self.is_open = False
            self._slot.vacate()


def transaction(entries: bytes, flags: int = 0) -> bytes:
    """Entries as a transaction."""
    return entry.TRANSACTION.pack(flags) + entries
