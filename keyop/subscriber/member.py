"""One channel of a pattern: a subscription without a thread, driven by the pattern's.

Where a plain subscription waits for its next attempt, a member is set aside with its message, and its neighbours go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from keyop.errors import KeyopError
from keyop.messages.message import Message
from keyop.publishing.handling import handling
from keyop.subscriber.delivery import Answer, Wait
from keyop.subscriber.exactly_once import ExactlyOnceSubscription, Rewound
from keyop.subscriber.part_subscription import PartSubscription
from keyop.subscriber.subscription import Stopped, Subscription

TROUBLE_WAIT_S = 0.5


class _Aside(Exception):
    """The message under way waits for its next attempt."""


class _Waiting(NamedTuple):
    wait: Wait
    message: Message[Any]
    line: bytes


class Member(Subscription):
    """`step` it whenever there may be something to do."""

    on_interrupt: Callable[[Member], None] | None = None
    """Called from any thread when something has been put back for it."""

    _waiting: _Waiting | None = None
    _trouble_until_s = 0.0
    _second: Member | None = None

    # ---- when

    @property
    def due_s(self) -> float | None:
        """When it is to be stepped in any case, by `time.monotonic`; None if nothing waits."""
        times = [self._trouble_until_s] if self._trouble_until_s else []
        if self._waiting is not None:
            times.append(self._waiting.wait.until_s)
        if self._second is not None and self._second.due_s is not None:
            times.append(self._second.due_s)
        return min(times, default=None)

    def interrupt(self) -> None:
        """As `Subscription.interrupt`."""
        super().interrupt()
        if self.on_interrupt is not None:
            self.on_interrupt(self)

    # ---- what

    def step(self) -> bool:
        """Deliver one batch of what there is; whether there may be more at once."""
        if time.monotonic() < self._trouble_until_s:
            return False
        self._trouble_until_s = 0.0
        handling.set(self._handling)
        try:
            return self._step()
        except (_Aside, Stopped):
            return False
        except (OSError, KeyopError) as error:
            self._log.error("%s/%s: delivery waits: %s", self.channel, self.id, error)
        except Exception:
            self._log.exception("%s/%s: delivery waits", self.channel, self.id)
        self._trouble_until_s = time.monotonic() + TROUBLE_WAIT_S
        self._tail.seek(self._offset)
        if self.replays is not None:
            self.replays.begin_again()
        return False

    def _step(self) -> bool:
        self._refresh()
        self._interrupted = False
        if self._stopping:
            return False
        if self.is_gone():
            if not self._attachment.directory.channel(self.channel).is_dir():
                return False  # to begin anew would make it again; the pattern is about to let it go
            self._begin_anew()
        if self.replays is not None and self.replays.news():
            self.replays.deliver()
        if not self._has_gone_on():
            return False
        batch = self._tail.read()
        if batch is None:
            self._caught_up()
        else:
            self._take(batch)
        self._tell_progress()
        return batch is not None

    def _begin_anew(self) -> None:
        self._waiting = None
        super()._begin_anew()

    def rest(self) -> None:
        """Give the descriptor up until there is something to read."""
        self._tail.rest()

    def _refresh(self) -> None:
        if self._held.refresh():
            self._move(self._offset, 0 if self._waiting is None else self._delivery.stop().attempts)

    # ---- a message that is set aside

    def _wait(self, wait: Wait) -> Answer:
        raise _Aside(wait)

    def _follow(self, answer: Answer, message: Message[Any], line: bytes) -> None:
        try:
            super()._follow(answer, message, line)
        except _Aside as aside:
            self._waiting = _Waiting(aside.args[0], message, line)
            self._left_attempts = self._delivery.stop().attempts
            raise

    def _has_gone_on(self) -> bool:
        """Go on with the message that is set aside if its time has come; whether none is left. Raises `_Aside`."""
        waiting = self._waiting
        if waiting is None:
            return True
        news = waiting.wait.or_news and self._tail.grown()
        answer = self._delivery.waited(time.monotonic(), news=news)
        if isinstance(answer, Wait):
            return False
        self._tail.note_growth()  # else one message would end every wait from here on
        self._waiting = None
        self._handling.message = waiting.message
        behind = self._offset + len(waiting.line) + 1
        try:
            self._finish(answer, waiting, behind)
        finally:
            self._handling.message = None
            self._move(self._offset, self._left_attempts)
            self._left_attempts = 0
        return True

    def _finish(self, answer: Answer, waiting: _Waiting, behind: int) -> None:
        self._follow(answer, waiting.message, waiting.line)
        self._offset = behind
        self._tail.seek(behind)

    # ---- as the second cursor of another member

    def second(self) -> Self:
        """As `Subscription.second`."""
        self._second = second = super().second()
        return second

    def has_news(self) -> bool:
        """As `Subscription.has_news`."""
        waiting = self._waiting
        if waiting is None:
            return super().has_news()
        return time.monotonic() >= waiting.wait.until_s or (waiting.wait.or_news and self._tail.grown())

    def deliver_all(self) -> None:
        """As `Subscription.deliver_all`. What waits holds up only what else was put back."""
        try:
            if self._has_gone_on():
                super().deliver_all()
        except _Aside:
            pass


class ExactlyOnceMember(Member, ExactlyOnceSubscription):
    """A member whose handler's publishes commit together with the move of its offset."""

    def _finish(self, answer: Answer, waiting: _Waiting, behind: int) -> None:
        try:
            super()._finish(answer, waiting, behind)
        except Rewound:
            self._tail.seek(self._offset)


class PartMember(Member, PartSubscription):
    """A member of a pattern whose work several processes share."""
