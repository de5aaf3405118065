"""Processes that publish, and one that gives commands."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from torturing.models.commit_path.entries import Ask, Key, Set, Transaction
from torturing.models.commit_path.line import Line
from torturing.models.commit_path.spill import write_spill

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

CHANNELS = ("in", "other")
_OUTSTANDING = 3
ASKING = Transaction(command=Ask())


class Publisher:
    """One life of a publisher. It goes on while it waits for what it has published, as one with threads does."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.port = world.crowd.attach(name)
        self.name = self.port.owner
        self._numbers = 0
        self._spills = 0
        self._sent: deque[tuple[int, Transaction]] = deque()

    is_leaving = False

    @property
    def is_idle(self) -> bool:
        """Whether everything that it published is answered."""
        return not self._sent

    def act(self) -> None:
        """Hear what was committed, and perhaps publish more."""
        self._hear()
        world = self._world
        if (
            world.calm
            or world.lull
            or len(self._sent) >= _OUTSTANDING
            or not self.port.has_room
            or world.chance.random() < (0.7 if world.mode.compaction else 0.4)
        ):
            return
        if world.chance.random() < (0.3 if world.mode.restless else 0.06):
            self._sent.append((self.port.put(ASKING), ASKING))
            world.say("{} asks for a checkpoint", self.name)
        else:
            self._publish()

    def _publish(self) -> None:
        world = self._world
        chance = world.chance
        mode = world.mode
        both = mode.atomic and chance.random() < 0.4
        channels = CHANNELS if both else (chance.choice(CHANNELS),)
        spilled = mode.spill and chance.random() < 0.4
        big = mode.atomic and chance.random() < 0.2
        lines = [self._line(channel, 6 if big else chance.choice((2, 3)), spilled) for channel in channels]
        if chance.random() < 0.2:
            lines.append(self._line(channels[-1], 2, spilled))
        sync = both or chance.random() < 0.08
        name = ""
        if spilled:
            self._spills += 1
            name = f"{self.port.ring}-{self._spills}"
            write_spill(world, name, lines)
            if world.crowd.dies(self):
                return
        transaction = Transaction(lines, sync=sync, spill=name)
        position = self.port.put(transaction)
        world.ledger.note_published(lines, whole=both or not mode.periodic)
        world.say("{} publishes {} (position {})", self.name, lines, position)
        self._sent.append((position, transaction))
        if mode.periodic and not sync and world.writer_is_up:
            # It has returned: shared memory survives every process.
            world.ledger.note_acknowledged(lines, durable=False)

    def _line(self, channel: str, length: int, spilled: bool) -> Line:
        self._numbers += 1
        return Line(self.name, self._numbers, channel, length, spilled=spilled)

    def _hear(self) -> None:
        while self._sent and self.port.committed >= self._sent[0][0]:
            position, transaction = self._sent.popleft()
            answer = self.port.answer(position)
            if answer is not None:
                self._world.ledger.note_refused(transaction.lines, answer.code)
                self._world.disk.spill.remove(transaction.spill)
            elif transaction.lines and (not self._world.mode.periodic or transaction.sync):
                self._world.ledger.note_acknowledged(transaction.lines, durable=True)


class Commander:
    """A process that sets a cursor back, and ends."""

    is_leaving = False

    def __init__(self, world: World, key: Key, offset: int) -> None:
        self._world = world
        self._key = key
        self._offset = offset
        self.port = world.crowd.attach("command")
        self.name = self.port.owner
        self._position = self.port.put(Transaction(command=Set(key, offset), sync=True))
        self._asked_at = world.ledger.note_setting(key[0], offset)
        world.say("{} asks to set {} to {}", self.name, key, offset)

    @property
    def is_idle(self) -> bool:
        """Whether it is done."""
        return not self.port.alive

    def act(self) -> None:
        """Wait for the answer, and go."""
        if self.port.committed >= self._position:
            if self.port.answer(self._position) is None:
                self._world.ledger.note_set(self._key[0], self._offset, self._asked_at)
            self._world.crowd.end(self)
