"""An attached process as the writer sees it."""

from __future__ import annotations

import time
from pathlib import Path

from keyop.ipc import lease
from keyop.ipc.layout import (
    COMMITTED,
    HEAD,
    LOST,
    MASK,
    POISONED,
    REPLIES_TAKEN,
    REPLIES_WRITTEN,
    REPLY_SLOTS,
    RING_SIZE_BYTES,
)
from keyop.ipc.port import Port, Reply
from keyop.ipc.word import Fence, distance
from keyop.protocol import entry

# A record that the head covers and whose CRC stays wrong for this long will not become right any more.
POISON_AFTER_S = 1.0
# Stores that are only late arrive within this time: until then the ring is looked at again at once.
RECHECK_FOR_S = 0.001

# Between answers and COMMITTED, in the one thread that stores them. ARM lets stores arrive in any order: who saw
# COMMITTED first would find no answer, and take a refusal for a success.
_fence = Fence()


class AttachedPort:
    """A port, how far its ring is taken, and the answers that wait for the commit."""

    __slots__ = (
        "blocked",
        "dead",
        "follows",
        "lease_path",
        "lost_slots",
        "memory",
        "name",
        "port",
        "replies",
        "ring_entry",
        "suspect_since",
        "taken",
        "waits_for",
        "words",
    )

    def __init__(self, name: str, port: Port, lease_path: Path) -> None:
        self.name = name
        self.port = port
        self.memory = port.memory
        self.words = port.words
        self.lease_path = lease_path
        self.taken: int = port.words[COMMITTED]
        # Channels whose growth it wants to hear of without having a cursor there.
        self.follows: set[bytes] = set()
        # What a frame says of this ring begins with this: its id, without answers.
        self.ring_entry = entry.ENTRY.pack(entry.RING, 0, 0, 0, entry.POSITION.size, port.ring_id)
        # Slots of cursors that are gone, until their process opens something there.
        self.lost_slots: set[int] = set()
        self.replies: list[Reply] = []
        # Its next record cannot be taken now, and is not tried again before the next wake-up.
        self.blocked = False
        # The errno of the disk that its next record waits for.
        self.waits_for = 0
        self.dead = False
        self.suspect_since = 0.0
        self._take_back_answers()

    def _take_back_answers(self) -> None:
        """Answers that the last writer wrote, and was killed before COMMITTED passed them: they are given again."""
        words = self.words
        written = words[REPLIES_WRITTEN]
        for _ in range(REPLY_SLOTS):  # there are no more, whatever the process's word says
            if written == words[REPLIES_TAKEN]:
                break
            answer = self.port.read_reply(written - 1 & MASK)
            if answer is not None and distance(self.taken, answer.position) >= 0:
                break
            written = written - 1 & MASK
        words[REPLIES_WRITTEN] = written

    def lose_cursor(self, slot: int) -> None:
        """Say that a cursor which the process holds is gone with its channel. The slot says nothing any more."""
        self.lost_slots.add(slot)
        self.words[LOST] = self.words[LOST] + 1 & MASK

    def unblock(self) -> None:
        """Try its next record again; nothing is taken from a closed ring any more."""
        self.blocked = bool(self.words[POISONED])

    @property
    def drained(self) -> bool:
        """Whether all that its ring holds is committed (or nothing more will be taken from it)."""
        return bool(self.words[COMMITTED] == self.words[HEAD] or self.words[POISONED])

    def is_alive(self) -> bool:
        """Whether the process still holds its lease."""
        try:
            return not self.dead and lease.is_held(self.lease_path)
        except OSError:
            return True  # cannot be known

    def reply(self, position: int, code: int, value: int = 0) -> None:
        """Answer the record that ends at ``position``, once the round is committed. Of the dead nobody asks."""
        if not self.dead:
            self.replies.append(Reply(position, code, value))

    def take_over(self, position: int, replies: list[tuple[int, int, int]]) -> bool:
        """What a journal frame says of this ring, if it is ahead of what the ring says by no more than its size."""
        committed = self.words[COMMITTED]
        ahead = position - committed & MASK
        if not 0 < ahead <= RING_SIZE_BYTES:
            return False
        for reply in replies:
            if 0 < (reply[0] - committed & MASK) <= ahead:
                self.port.write_reply(Reply(*reply))
        _fence()
        self.words[COMMITTED] = position
        self.taken = position
        return True

    def frame_entry(self) -> bytes:
        """What the frame says of this ring: up to where it is taken, and the answers."""
        if not self.replies:
            return self.ring_entry + entry.POSITION.pack(self.taken)
        data = entry.POSITION.pack(self.taken) + b"".join(entry.REPLY.pack(*answer) for answer in self.replies)
        return entry.encode(entry.RING, value=self.port.ring_id, data=data)

    def settle(self) -> None:
        """Publish what the round did with this ring: the answers first, they count once COMMITTED has passed them."""
        if self.replies:
            for reply in self.replies:
                self.port.write_reply(reply)
            self.replies.clear()
            _fence()
        self.words[COMMITTED] = self.taken

    def restate(self) -> None:
        """Between two rounds: COMMITTED again. Who waits for a damaged one would wait for ever."""
        if self.words[COMMITTED] != self.taken:
            self.words[COMMITTED] = self.taken
            if not self.dead:
                self.port.commit.post()

    def suspect(self) -> bool:
        """Note that the next record cannot be read; whether it has been so for too long and the ring is closed."""
        now = time.monotonic()
        if not self.suspect_since:
            self.suspect_since = now
        self.blocked = now - self.suspect_since > RECHECK_FOR_S
        if now - self.suspect_since < POISON_AFTER_S:
            return False
        self.words[POISONED] = 1
        return True

    def wake(self) -> None:
        """Post both semaphores."""
        self.port.commit.post()
        self.port.data.post()
