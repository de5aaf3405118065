"""What becomes of one message after another: attempts, waits, dead letters. No I/O and no clock in here.

The caller tells a `Delivery` what happened and at what time, and does what it answers. A message whose first attempt
succeeds needs nothing of it::

    handler(message)           # returns: move the cursor, next message; `delivery` was not asked
                               # raises: answer = delivery.failed(text, now_s)
    Wait(until_s)              # then delivery.waited(now_s)
    Run(attempt)               # run the handler, then succeeded, failed or retry_later
    DeadLetter(text, retries)  # commit it, then dead_lettered or dead_letter_failed
    Advance(given_up)          # move the cursor, next message
    Stay(attempts)             # stopped: the cursor stays, and this many attempts go with it

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

RETRY_LATER_POLL_S = 1.0
"""How long RetryLater waits where no new message wakes it before."""

# 2**63 times the shortest base, a millisecond, is above any longest wait.
_MAX_DOUBLINGS = 63
_DEAD_LETTER_WAIT_S = 1.0


class RetryPolicy(NamedTuple):
    """How often and how fast a failed message is tried again."""

    max_retries: int = 5
    """After the first attempt; 0 is one attempt in all."""
    backoff_base_ms: int = 100
    """The wait before the first retry; each further one is twice as long."""
    backoff_max_ms: int = 5000
    """The longest wait."""

    def wait_s(self, attempt: int) -> float:
        """How long to wait after this attempt (1 is the first) has failed: base * 2**(attempt - 1), capped."""
        doublings = min(attempt - 1, _MAX_DOUBLINGS)
        return min(self.backoff_base_ms << doublings, self.backoff_max_ms) / 1000


class Run(NamedTuple):
    """Run the handler."""

    attempt: int
    """1 for the first. It is to be stored beside the cursor before the handler runs."""


class Wait(NamedTuple):
    """Do nothing until then, and call `waited`."""

    until_s: float
    or_news: bool
    """Whether a new message in the channel ends the wait, too."""


class DeadLetter(NamedTuple):
    """Write a dead letter and move the cursor, in one transaction."""

    last_error: str
    retries: int


class Advance(NamedTuple):
    """Move the cursor behind the message and clear its attempts."""

    given_up: str = ""
    """Not empty: the message was given up without a dead letter, which is to be logged and counted."""


class Stay(NamedTuple):
    """The subscription stops and the message comes again; the cursor stays."""

    attempts: int
    """Attempts that were begun and came to their end; to be stored beside the cursor."""


Answer = Run | Wait | DeadLetter | Advance | Stay


class State(enum.Enum):
    """What the current message is in."""

    RUNNING = "running"
    """Its handler runs, or is about to. So it is at the start of every message."""
    WAITING = "waiting"
    """Between two attempts."""
    DEAD_LETTER = "dead letter"
    """Its dead letter is being committed, or waits to be tried again."""


class Delivery:
    """The deliveries of one subscription, one message at a time."""

    __slots__ = ("_dead_letter", "_dead_letters", "_policy", "_wait", "attempt", "state")

    def __init__(self, policy: RetryPolicy, *, dead_letters: bool = True) -> None:
        """`dead_letters` is False on a dead-letter channel: what fails there for good is given up."""
        self._policy = policy
        self._dead_letters = dead_letters
        self._dead_letter: DeadLetter | None = None
        self._wait = Wait(0.0, or_news=False)
        self.attempt = 1
        """The current attempt, or the last one that was begun."""
        self.state = State.RUNNING

    def take_over(self, attempts: int, now_s: float) -> Answer:
        """Begin with a message for which a predecessor had begun `attempts` attempts when it ended."""
        if attempts <= 0:
            return self._run(1)
        self.attempt = attempts
        return self._retry_or_give_up(f"the process ended during attempt {attempts}", now_s)

    def succeeded(self) -> Answer:
        """The handler returned."""
        return self._done()

    def failed(self, error: str, now_s: float) -> Answer:
        """The handler raised."""
        return self._retry_or_give_up(error, now_s)

    def undecodable(self, error: str) -> Answer:
        """The payload cannot be made into what the handler takes: no attempt would change that."""
        return self._give_up(error)

    def retry_later(self, now_s: float) -> Answer:
        """The handler asked for the message again later: no retry is used up, attempts start anew."""
        self.attempt = 0
        return self._begin_wait(RETRY_LATER_POLL_S, now_s, or_news=True)

    def waited(self, now_s: float, *, news: bool = False) -> Answer:
        """Time has passed, or there is news in the channel. Gives the same wait again if it is not over."""
        wait = self._wait
        if now_s < wait.until_s and not (news and wait.or_news):
            return wait
        if self._dead_letter is not None:
            return self._dead_letter
        return self._run(self.attempt + 1)

    def dead_lettered(self) -> Answer:
        """The dead letter is committed, and the cursor with it."""
        return self._done()

    def dead_letter_failed(self, now_s: float) -> Answer:
        """The dead letter could not be committed. The message is not lost: the same again after the longest wait."""
        # A second at least: without any back-off this would spin while the disk is full.
        self._wait = Wait(now_s + max(self._policy.backoff_max_ms / 1000, _DEAD_LETTER_WAIT_S), or_news=False)
        return self._wait

    def stop(self) -> Stay:
        """The subscription ends now; an attempt that has not come to its end is taken back."""
        return Stay(self.attempt - 1 if self.state is State.RUNNING else self.attempt)

    def _run(self, attempt: int) -> Run:
        self.state = State.RUNNING
        self.attempt = attempt
        return Run(attempt)

    def _begin_wait(self, wait_s: float, now_s: float, *, or_news: bool = False) -> Wait:
        self.state = State.WAITING
        self._wait = Wait(now_s + wait_s, or_news)
        return self._wait

    def _retry_or_give_up(self, error: str, now_s: float) -> Answer:
        if self.attempt > self._policy.max_retries:
            return self._give_up(error)
        return self._begin_wait(self._policy.wait_s(self.attempt), now_s)

    def _give_up(self, error: str) -> Answer:
        if not self._dead_letters:
            return self._done(error)
        self.state = State.DEAD_LETTER
        self._dead_letter = DeadLetter(error, self._policy.max_retries)
        return self._dead_letter

    def _done(self, given_up: str = "") -> Advance:
        self.state = State.RUNNING
        self.attempt = 1
        self._dead_letter = None
        return Advance(given_up)
