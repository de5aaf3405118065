"""A process whose handler's output and the move of its cursor are one transaction."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from torturing.models.commit_path.entries import Move, Transaction
from torturing.models.commit_path.line import Found, Line
from torturing.models.commit_path.subscriber import Subscriber
from torturing.models.commit_path.subscriptions import NOT_HELD, STALE

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

OUTPUT = "out"
_BUNDLES_IN_FLIGHT = 3
_BUNDLE_MESSAGES = 3


class _Sent(NamedTuple):
    position: int
    old: int
    new: int
    messages: int
    attempt: int


class Chain(Subscriber):
    """Exactly once: bundles of several messages, and the next is begun before the last is committed."""

    exactly_once = True

    def __init__(self, world: World, id: str) -> None:
        super().__init__(world, id)
        # Up to where is sent.
        self._cursor = 0
        self._sent: deque[_Sent] = deque()
        self._outputs: list[Line] = []
        self._behind = 0
        self._wrong = False
        # One by one up to there, to see whose output is refused.
        self._alone_until = 0
        # Where a single message's output was refused, and after which attempt.
        self._refused: tuple[int, int] | None = None
        # A bundle was refused, and what was sent behind it is waited for: where to go on then.
        self._rewinding: int | None = None
        self._attempt = 1
        # What is sent is committed before the next message.
        self._is_alone = False

    @property
    def is_idle(self) -> bool:
        """Whether everything is handled and committed."""
        return (
            self.is_granted
            and not (self._sent or self._outputs)
            and self._rewinding is None
            and self.next_line() is None
        )

    def granted(self, offset: int) -> None:
        """As `Subscriber.granted`."""
        super().granted(offset)
        self._cursor = self._behind = offset

    def deliver(self) -> None:
        """As `Subscriber.deliver`."""
        self._settle()
        if self._rewinding is not None:
            self._rewind()
            return
        if self._is_alone and self._sent:
            return
        self._is_alone = False
        found = self.next_line()
        if found is None:
            self._flush()
        elif self._is_special(found):
            self._handle_alone(found)
        elif len(self._sent) < _BUNDLES_IN_FLIGHT:
            self._handle(found)

    def _is_special(self, found: Found) -> bool:
        offset, attempts = self._carried
        return bool(attempts and offset == found.begin) or (
            self._refused is not None and self._refused[0] == found.begin
        )

    def _handle(self, found: Found) -> None:
        if self._alone_until > self._cursor and (self._sent or self._outputs):
            self._flush()
            return
        self._attempt = 1
        if not self.begin_attempt(found, 1):
            return
        self._add_output(found)
        full = len(self._outputs) >= _BUNDLE_MESSAGES or found.behind <= self._alone_until
        if full or self._world.chance.random() < 0.5:
            self._flush()

    def _handle_alone(self, found: Found) -> None:
        """A message that was begun before: its attempt is committed before the next message."""
        self._flush()
        if self._sent:
            return
        if self._refused is not None:
            attempt = self._refused[1] + 1
            self._refused = None
            self._carried = (0, 0)
        else:
            attempt = self.attempt_of(found)
        self._attempt = attempt
        self._is_alone = True
        if self.begin_attempt(found, attempt):
            self._add_output(found)
            self._flush()

    def _add_output(self, found: Found) -> None:
        assert found.line is not None
        world = self._world
        self._outputs.append(Line("chain", world.next_number(), OUTPUT, world.chance.choice((1, 2)), of=found.line))
        # An output that cannot be published; the next attempt makes a better one.
        self._wrong |= not world.calm and self._attempt == 1 and world.chance.random() < 0.06
        self.offset = self._behind = found.behind

    # ---- bundles

    def _flush(self) -> None:
        if not self._outputs or not self.port.has_room:
            return
        self._moves += 1
        move = Move(self.key, self._cursor, self._behind, self._moves, True)
        transaction = Transaction(self._outputs, move=move, sync=True, wrong=self._wrong)
        self._world.ledger.note_published(self._outputs, whole=True)
        position = self.port.put(transaction)
        self._world.say(
            "{} sends the outputs of {} and its move from {} to {}",
            self.name,
            [output.of for output in self._outputs],
            self._cursor,
            self._behind,
        )
        self._sent.append(_Sent(position, self._cursor, self._behind, len(self._outputs), self._attempt))
        self._cursor = self._behind
        self._outputs = []
        self._wrong = False

    def _settle(self) -> None:
        while self._sent and self.port.committed >= self._sent[0].position:
            sent = self._sent.popleft()
            answer = self.port.answer(sent.position)
            if answer is None or self._rewinding is not None:
                continue
            if answer.code == NOT_HELD:
                self._world.ledger.fail("refused", f"{self.name} lives, and the writer says that it holds nothing")
            self._rewinding = sent.old
            if answer.code == STALE:
                self._rewinding = answer.value[0]
            elif sent.messages == 1:
                self._refused = (sent.old, sent.attempt)
            else:
                self._alone_until = sent.new

    def _rewind(self) -> None:
        """Whatever was sent behind a refused bundle is refused as well; then go on from the writer's cursor."""
        if self._sent:
            return
        assert self._rewinding is not None
        self._world.say("{} goes back to {}", self.name, self._rewinding)
        self._outputs = []
        self._wrong = False
        self._cursor = self._behind = self.offset = self._rewinding
        self._rewinding = None
