"""The delivery of one subscription as a state machine: what was told, what is answered. No clock runs here."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyop.subscriber.delivery import (
    RETRY_LATER_POLL_S,
    Advance,
    Answer,
    DeadLetter,
    Delivery,
    RetryPolicy,
    Run,
    Stay,
    Wait,
)


def waits(policy: RetryPolicy) -> tuple[list[float], Answer]:
    """Let a message fail until something else than a wait is answered."""
    delivery = Delivery(policy)
    now_s = 1000.0
    waited_s: list[float] = []
    while isinstance(answer := delivery.failed("no", now_s), Wait):
        waited_s.append(round(answer.until_s - now_s, 6))
        now_s = answer.until_s
        assert delivery.waited(now_s) == Run(len(waited_s) + 1)
    return waited_s, answer


def test_the_schedule_at_the_defaults() -> None:
    """Case 31."""
    assert waits(RetryPolicy()) == ([0.1, 0.2, 0.4, 0.8, 1.6], DeadLetter("no", 5))


def test_no_retries_is_one_attempt() -> None:
    assert waits(RetryPolicy(max_retries=0)) == ([], DeadLetter("no", 0))


def test_the_wait_is_capped_whatever_the_attempt() -> None:
    waited_s, answer = waits(RetryPolicy(max_retries=1000))
    assert waited_s[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert waited_s[6:] == [5.0] * 994
    assert answer == DeadLetter("no", 1000)
    assert RetryPolicy().wait_s(10**9) == 5.0
    assert RetryPolicy(backoff_base_ms=1, backoff_max_ms=2**62).wait_s(1000) == 2**62 / 1000
    assert RetryPolicy(backoff_base_ms=0).wait_s(1000) == 0
    assert RetryPolicy(backoff_base_ms=9000).wait_s(1) == 5.0


def test_success_after_a_retry_starts_the_next_message_anew() -> None:
    delivery = Delivery(RetryPolicy())
    assert delivery.failed("no", 0) == Wait(0.1, False)
    assert delivery.waited(0.1) == Run(2)
    assert delivery.succeeded() == Advance()
    assert delivery.failed("no", 5) == Wait(5.1, False)


def test_a_wait_that_is_not_over_goes_on_and_news_do_not_end_it() -> None:
    delivery = Delivery(RetryPolicy())
    wait = delivery.failed("no", 0)
    assert delivery.waited(0.09) == wait
    assert delivery.waited(0.09, news=True) == wait
    assert delivery.waited(0.1) == Run(2)


@pytest.mark.parametrize("errors_before", [0, 2, 5])
def test_retry_later_uses_no_retry_and_attempts_start_anew(errors_before: int) -> None:
    """Case 22."""
    delivery = Delivery(RetryPolicy())
    for attempt in range(1, errors_before + 1):
        assert isinstance(delivery.failed("no", 0), Wait)
        assert delivery.waited(100) == Run(attempt + 1)
    for _ in range(20):
        assert delivery.retry_later(200) == Wait(200 + RETRY_LATER_POLL_S, True)
        assert delivery.stop() == Stay(0)
        assert delivery.waited(200.5) == Wait(200 + RETRY_LATER_POLL_S, True)
        assert delivery.waited(200.5, news=True) == Run(1)
    assert delivery.failed("no", 300) == Wait(300.1, False)


def test_a_stop_leaves_the_message_and_takes_the_unfinished_attempt_back() -> None:
    """Case 20."""
    delivery = Delivery(RetryPolicy())
    assert delivery.stop() == Stay(0)
    delivery.failed("no", 0)
    assert delivery.stop() == Stay(1)
    delivery.waited(1)
    assert delivery.stop() == Stay(1)
    delivery.failed("no", 1)
    assert delivery.stop() == Stay(2)


def test_attempts_of_a_dead_predecessor_count() -> None:
    policy = RetryPolicy(max_retries=2)
    assert Delivery(policy).take_over(0, 50) == Run(1)
    delivery = Delivery(policy)
    assert delivery.take_over(2, 50) == Wait(50.2, False)
    assert delivery.stop() == Stay(2)
    assert delivery.waited(50.2) == Run(3)
    assert delivery.failed("no", 60) == DeadLetter("no", 2)
    assert Delivery(policy).take_over(3, 50) == DeadLetter("the process ended during attempt 3", 2)
    assert Delivery(policy).take_over(2**32, 50) == DeadLetter("the process ended during attempt 4294967296", 2)


def test_undecodable_is_dead_lettered_at_once() -> None:
    """Case 28."""
    delivery = Delivery(RetryPolicy())
    assert delivery.undecodable("not a date") == DeadLetter("not a date", 5)
    assert delivery.dead_lettered() == Advance()


def test_a_dead_letter_that_cannot_be_written_is_tried_again() -> None:
    """Case 23."""
    for policy, wait_s in ((RetryPolicy(max_retries=0), 5), (RetryPolicy(0, 0, 0), 1)):
        delivery = Delivery(policy)
        letter = delivery.failed("no", 0)
        assert letter == DeadLetter("no", 0)
        for now_s in (10, 20, 30):
            assert delivery.dead_letter_failed(now_s) == Wait(now_s + wait_s, False)
            assert delivery.stop() == Stay(1)
            assert delivery.waited(now_s + 0.5, news=True) == Wait(now_s + wait_s, False)
            assert delivery.waited(now_s + wait_s) is letter
        assert delivery.dead_lettered() == Advance()
        assert delivery.attempt == 1


def test_on_a_dead_letter_channel_it_is_given_up() -> None:
    """Case 27."""
    delivery = Delivery(RetryPolicy(max_retries=1), dead_letters=False)
    assert delivery.failed("no", 0) == Wait(0.1, False)
    assert delivery.waited(1) == Run(2)
    assert delivery.failed("no", 1) == Advance("no")
    assert delivery.undecodable("not a date") == Advance("not a date")
    assert delivery.take_over(2, 0) == Advance("the process ended during attempt 2")


class AnyCourse(RuleBasedStateMachine):
    """Whatever happens: never more attempts than allowed, and each message ends in exactly one way."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = RetryPolicy(max_retries=3)
        self.delivery = Delivery(self.policy)
        self.now_s = 0.0
        self.answer: Answer = Run(1)
        self.runs = 1

    @precondition(lambda self: isinstance(self.answer, Run))
    @rule(outcome=st.sampled_from(["succeeded", "failed", "retry_later", "undecodable"]))
    def handler(self, outcome: str) -> None:
        if outcome == "succeeded":
            self.answer = self.delivery.succeeded()
        elif outcome == "failed":
            self.answer = self.delivery.failed("no", self.now_s)
        elif outcome == "undecodable":
            self.answer = self.delivery.undecodable("odd")
        else:
            self.answer = self.delivery.retry_later(self.now_s)
            self.runs = 0

    @precondition(lambda self: isinstance(self.answer, Wait))
    @rule(passed_s=st.floats(0, 10), news=st.booleans())
    def time(self, passed_s: float, news: bool) -> None:
        self.now_s += passed_s
        self.answer = self.delivery.waited(self.now_s, news=news)
        self.runs += isinstance(self.answer, Run)

    @precondition(lambda self: isinstance(self.answer, DeadLetter))
    @rule(committed=st.booleans())
    def dead_letter(self, committed: bool) -> None:
        if committed:
            self.answer = self.delivery.dead_lettered()
        else:
            self.answer = self.delivery.dead_letter_failed(self.now_s)

    @precondition(lambda self: isinstance(self.answer, Advance))
    @rule()
    def next_message(self) -> None:
        self.answer = Run(self.delivery.attempt)
        self.runs = 1

    @precondition(lambda self: not isinstance(self.answer, Advance))
    @rule()
    def restart(self) -> None:
        stay = self.delivery.stop()
        assert stay.attempts == (self.runs - 1 if isinstance(self.answer, Run) else self.runs)
        self.delivery = Delivery(self.policy)
        self.answer = self.delivery.take_over(stay.attempts, self.now_s)
        self.runs = stay.attempts + isinstance(self.answer, Run)

    @invariant()
    def attempts_are_counted(self) -> None:
        assert self.runs <= self.policy.max_retries + 1
        if isinstance(self.answer, Run):
            assert self.answer.attempt == self.runs


TestAnyCourse = AnyCourse.TestCase
