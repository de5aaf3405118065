"""Shared memory: a port for each attached process, with its ring and its slot. It outlives processes, not the power."""

from __future__ import annotations

from typing import NamedTuple

from torturing.models.commit_path.entries import Answer, Key, Transaction

RING_RECORDS = 8


class SlotCursor(NamedTuple):
    """What a subscriber stored last: how often it has stored, its place, and the attempts begun at it."""

    moves: int
    offset: int
    attempts: int


class Slot:
    """A subscription's place in a port. The process writes it."""

    __slots__ = ("cursor", "exactly_once", "granted", "is_leaving", "key")

    def __init__(self, key: Key, exactly_once: bool) -> None:
        self.key = key
        self.exactly_once = exactly_once
        self.granted = False
        # Its process is about to give it up, or has done so and does not know yet.
        self.is_leaving = False
        self.cursor: SlotCursor | None = None


class Port:
    """What one process shares with the writer. Positions count records."""

    __slots__ = ("alive", "answers", "committed", "head", "owner", "records", "ring", "slot")

    def __init__(self, owner: str, ring: int) -> None:
        self.owner = owner
        self.ring = ring
        self.alive = True
        # The process's words.
        self.head = 0
        self.records: dict[int, Transaction] = {}
        self.slot: Slot | None = None
        # The writer's words.
        self.committed = 0
        self.answers: list[Answer] = []

    @property
    def has_room(self) -> bool:
        """Whether another record fits into the ring."""
        return self.head - self.committed < RING_RECORDS

    def put(self, transaction: Transaction) -> int:
        """Hand a transaction to the writer; the position behind it."""
        self.records[self.head] = transaction
        self.head += 1
        self.records.pop(self.head - RING_RECORDS - 1, None)
        return self.head

    def answer(self, position: int) -> Answer | None:
        """Take the writer's answer to a record that is committed, if it has said anything but yes."""
        for number, answer in enumerate(self.answers):
            if answer.position == position:
                del self.answers[number]
                return answer
        return None

    def waiting(self) -> list[Transaction]:
        """What the ring holds and nothing has committed."""
        return [self.records[position] for position in range(self.committed, self.head)]
