"""A subscriber as the writer knows it: one cursor, or one for each of the parts that share its work.

A cursor carries a count of its moves, in the subscriber's slot, here, in transactions and in frames alike. The highest
count is the truth, and the file where none of them names the cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keyop.ipc.slot import Slot, SlotCursor
from keyop.protocol import entry
from keyop.storage.parts import PARTS_SUFFIX
from keyop.writer.attached import AttachedPort

Key = tuple[bytes, bytes]


class Cursor:
    """What one process may hold. ``planned`` is where the round under way leaves it."""

    __slots__ = (
        "attempts",
        "attempts_offset",
        "holder",
        "moves",
        "offset",
        "part",
        "planned",
        "slot",
        "subscriber",
        "taken_up",
    )

    def __init__(self, subscriber: Subscriber, part: int, offset: int) -> None:
        self.subscriber = subscriber
        self.part = part
        self.offset = offset
        self.planned = offset
        self.moves = 0
        # Attempts begun at the message under way. Of an exactly-once subscriber that may lie beyond the cursor.
        self.attempts_offset = offset
        self.attempts = 0
        self.holder: AttachedPort | None = None
        self.slot: Slot | None = None
        # Its holder was found in his slot when this writer started.
        self.taken_up = False

    def adopt(self, claim: SlotCursor) -> bool:
        """Take over what the slot says if it has moved; whether it has."""
        if claim.moves <= self.moves:
            return False
        self.moves = claim.moves
        self.attempts_offset, self.attempts = claim.offset, claim.attempts
        if not self.subscriber.exactly_once:
            self.planned = claim.offset
        return True

    @property
    def place(self) -> tuple[bytes, bytes, int, int]:
        """Channel, id, part and number of parts: what its slot has to say."""
        return *self.subscriber.key, self.part, len(self.subscriber.cursors)


class Subscriber:
    """An id on a channel. Nothing before the least of its cursors comes again."""

    __slots__ = ("cursors", "filed", "flags", "key", "path")

    def __init__(self, key: Key, path: Path, offsets: Sequence[int]) -> None:
        self.key = key
        self.path = path
        self.flags = 0
        self.cursors = [Cursor(self, part, offset) for part, offset in enumerate(offsets)]
        # What its files say, of each cursor; empty where that is not known.
        self.filed: tuple[int, ...] = ()

    @property
    def exactly_once(self) -> bool:
        """Whether its place is decided here, by transactions, and not in the subscriber's slot."""
        return bool(self.flags & entry.EXACTLY_ONCE)

    @property
    def offset(self) -> int:
        """What its offset file is to say."""
        return min(cursor.offset for cursor in self.cursors)

    @property
    def planned(self) -> int:
        """Where the round under way leaves it."""
        return min(cursor.planned for cursor in self.cursors)

    @property
    def parts_path(self) -> Path:
        """The file that keeps the offset of each part."""
        return self.path.with_suffix(PARTS_SUFFIX)

    def apply(self) -> None:
        """The frame stands that holds what was planned."""
        for cursor in self.cursors:
            cursor.offset = cursor.planned

    def frame_entry(self) -> bytes:
        """The subscriber as a frame holds it, all of its parts: then one frame is enough to know them."""
        if len(self.cursors) == 1:
            (cursor,) = self.cursors
            state = entry.CURSOR_STATE.pack(cursor.moves, cursor.attempts_offset, cursor.attempts)
            return entry.encode(entry.CURSOR, *self.key, flags=self.flags, value=cursor.planned, data=state)
        states = b"".join(
            entry.PART_STATE.pack(cursor.planned, cursor.moves, cursor.attempts_offset, cursor.attempts)
            for cursor in self.cursors
        )
        return entry.encode(entry.PARTS, *self.key, flags=self.flags, value=self.planned, data=states)
