"""A process that handles messages and keeps its cursor in its slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import align, next_line
from torturing.models.commit_path.entries import Close, Key, Move, Open, Transaction
from torturing.models.commit_path.line import Found, Line
from torturing.models.commit_path.memory import Slot, SlotCursor
from torturing.models.commit_path.subscriptions import BUSY, GRANTED

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

INPUT = "in"
DEAD_LETTERS = "dead"
_REFUSALS = 12


class Subscriber:
    """What both kinds do: ask for the subscription, store the attempt, and then run the handler."""

    exactly_once = False
    is_leaving = False

    def __init__(self, world: World, id: str) -> None:
        self._world = world
        self.key: Key = (INPUT, id)
        self.port = world.crowd.attach(id)
        self.name = self.port.owner
        self._asked = 0
        self._refusals = 0
        self.is_granted = False
        self.offset = 0
        self._moves = 0
        # A predecessor's attempts at a message, and where that lies.
        self._carried = (0, 0)

    def act(self) -> None:
        """One thing after the other."""
        if self.is_granted:
            self.deliver()
        elif self._asked:
            self._hear_grant()
        elif self.port.has_room:
            self.port.slot = Slot(self.key, self.exactly_once)
            self._asked = self.port.put(Transaction(command=Open(self.key, 0, self.exactly_once), sync=True))
            self._world.ledger.note_asked(self.key)
            self._world.say("{} asks for its subscription", self.name)

    def _hear_grant(self) -> None:
        if self.port.committed < self._asked:
            return
        answer = self.port.answer(self._asked)
        if answer is None or answer.code not in (BUSY, GRANTED):
            self._world.ledger.fail("lost", f"{self.name}: the answer to its question is {answer}")
            self._world.crowd.end(self)
            return
        if answer.code == BUSY:
            self.port.slot = None
            self._asked = 0
            self._refusals += 1
            if self._refusals > _REFUSALS:
                self._world.ledger.fail("refused", f"{self.name}: {self.key} is busy, and nobody holds it")
            return
        offset, self._moves, attempts, attempts_offset = answer.value
        self._carried = (attempts_offset, attempts)
        self.granted(offset)
        self.store(offset, attempts if attempts_offset == offset else 0)
        assert self.port.slot is not None
        self.port.slot.granted = True
        self.is_granted = True
        self._world.say("{} begins at {} (carried {})", self.name, offset, self._carried)
        first = align(self._world.disk.channels.directory(INPUT), 0)
        self._world.ledger.note_granted(self.key, offset, first)

    def granted(self, offset: int) -> None:
        """The writer has said where to begin."""
        self.offset = offset

    def deliver(self) -> None:
        """Handle the next message, if there is one."""
        raise NotImplementedError

    def next_line(self) -> Found | None:
        """What stands at the offset."""
        return next_line(self._world.disk.channels.directory(INPUT), self.offset)

    def store(self, offset: int, attempts: int) -> None:
        """Into the slot."""
        self._moves += 1
        assert self.port.slot is not None
        self.port.slot.cursor = SlotCursor(self._moves, offset, attempts)

    def attempt_of(self, found: Found) -> int:
        """Which attempt at a message this will be: the first, or one more than a predecessor died at."""
        offset, attempts = self._carried
        if attempts and offset == found.begin:
            self._carried = (0, 0)
            return attempts + 1
        return 1

    def begin_attempt(self, found: Found, attempt: int) -> bool:
        """Store the attempt and enter the handler; whether the process lives on."""
        world = self._world
        first = world.rules.attempt_first
        if first:
            self.store(found.begin, attempt)
        self.offset = found.begin
        assert found.line is not None
        world.ledger.note_begun(self.key, found.line, attempt)
        world.say("{} begins attempt {} at {} ({})", self.name, attempt, found.line, found.begin)
        if world.crowd.dies(self):
            world.ledger.note_died_in_handler(self.key, found.line, attempt)
            return False
        if not first:
            self.store(found.begin, attempt)
        return True


class PlainSubscriber(Subscriber):
    """At least once, with dead letters; now and then it is stopped, or its id is forgotten."""

    def __init__(self, world: World, id: str) -> None:
        super().__init__(world, id)
        self._unsaved = False
        self._letter: tuple[int, Found] | None = None
        # The position of what says so; when it was asked that the id be forgotten, if it was.
        self._closing: tuple[int, int] | None = None
        self._has_left = False

    @property
    def is_idle(self) -> bool:
        """Whether it has handled all that there is."""
        return self.is_granted and not (self._letter or self._closing or self._unsaved) and self.next_line() is None

    def deliver(self) -> None:
        """As `Subscriber.deliver`."""
        if self._has_left:
            if self._world.calm or self._world.chance.random() < 0.02:
                self._world.crowd.end(self)
        elif self._closing is not None:
            self._hear_closed(*self._closing)
        elif self._letter is not None:
            self._hear_letter(*self._letter)
        elif (found := self.next_line()) is not None:
            self._handle(found)
        else:
            if self._unsaved:
                self._save()
            world = self._world
            if not world.calm and world.chance.random() < world.crowd.departures and self.port.has_room:
                self._close()

    def _handle(self, found: Found) -> None:
        world = self._world
        attempt = self.attempt_of(found)
        if not self.begin_attempt(found, attempt):
            return
        assert found.line is not None
        if world.chance.random() < 0.08 and self.port.has_room:
            self._give_up(found)
            return
        world.ledger.note_handled(found.line)
        self.offset = found.behind
        self._unsaved = True
        if world.chance.random() < 0.5:
            self._save()

    def _save(self) -> None:
        self.store(self.offset, 0)
        self._unsaved = False
        self._world.ledger.note_saved()

    def _give_up(self, found: Found) -> None:
        """The dead letter and the step to the next message are one transaction."""
        assert found.line is not None
        letter = Line(self.name, found.begin, DEAD_LETTERS, 2, of=found.line)
        move = Move(self.key, self.offset, found.behind, self._moves + 1, False)
        position = self.port.put(Transaction([letter], move=move, sync=True))
        self._world.say("{} gives up {}", self.name, found.line)
        self._world.ledger.note_published([letter])
        self._letter = (position, found)

    def _hear_letter(self, position: int, found: Found) -> None:
        if self.port.committed < position:
            return
        answer = self.port.answer(position)
        self._letter = None
        if answer is not None:
            self._world.ledger.fail("refused", f"{self.name}: its dead letter is refused: {answer.code}")
        assert found.line is not None
        self._world.ledger.note_dead(found.line)
        self.offset = found.behind
        self._save()

    def _close(self) -> None:
        # The slot says so first. That a writer starts between the two is left out here: they are microseconds apart.
        assert self.port.slot is not None
        self.port.slot.is_leaving = True
        forget = self._world.chance.random() < 0.4
        asked_at = self._world.ledger.note_command() if forget else 0
        self._closing = (self.port.put(Transaction(command=Close(self.key, forget))), asked_at)
        self.is_leaving = True
        self._world.say("{} {}", self.name, "has its id forgotten" if forget else "closes its subscription")

    def _hear_closed(self, position: int, asked_at: int) -> None:
        if self.port.committed < position:
            return
        if self.port.answer(position) is None and asked_at:
            self._world.ledger.note_forgotten(self.key, asked_at)
        self.port.slot = None
        self._closing = None
        self._has_left = True
