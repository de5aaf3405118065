"""What a subscription may be told, as one small value."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from keyop.configuration.settings import SubscriberSettings
from keyop.protocol.entry import MAX_PARTS
from keyop.subscriber.delivery import RetryPolicy
from keyop.subscriber.invoking import is_coroutine_function
from keyop.subscriber.share import Key

Start = Literal["latest", "earliest"] | int | datetime


class SubscribeOptions(NamedTuple):
    """How one subscriber of one channel wants its messages."""

    policy: RetryPolicy
    start: Start = "latest"
    """Counts only for an id that has no offset yet."""
    max_age_s: float | None = None
    """At the start, messages older than this are passed over."""
    exactly_once: bool = False
    require_type: bool = False
    """A payload type that is not registered goes to the dead letters."""
    part: int = 0
    """Which of ``parts`` that share the work of the id; counted from 0."""
    parts: int = 1
    key: Key | None = None
    """By what the messages are divided among the parts; None: by their ids."""


def retry_policy(
    max_retries: int | None, retry_backoff: tuple[float, float] | None, defaults: SubscriberSettings
) -> RetryPolicy:
    """What ``subscribe`` says, else what the configuration says. Raises `ValueError`."""
    retries = defaults.max_retries if max_retries is None else max_retries
    if retries < 0:
        raise ValueError(f"max_retries is 0 or more, not {max_retries}")
    if retry_backoff is None:
        return RetryPolicy(retries, defaults.retry_backoff_base_ms, defaults.retry_backoff_max_ms)
    try:
        first_s, longest_s = retry_backoff
        is_good = 0 < first_s <= longest_s
    except (TypeError, ValueError):
        is_good = False
    if not is_good:
        raise ValueError(f"retry_backoff is (first, longest) in seconds, 0 < first <= longest, not {retry_backoff}")
    return RetryPolicy(retries, max(1, round(first_s * 1000)), max(1, round(longest_s * 1000)))


def checked_start(start: Start) -> Start:
    """Give it back. Raises `ValueError`."""
    if isinstance(start, datetime) or start in ("latest", "earliest"):
        return start
    if not isinstance(start, int) or isinstance(start, bool):
        raise ValueError(f'start is "latest", "earliest", an offset or a datetime, not {start!r}')
    if not 0 <= start < 1 << 63:
        raise ValueError(f"start: an offset is 0 or more and below 2**63, not {start}")
    return start


def checked_age(max_age: float | timedelta | None) -> float | None:
    """In seconds. Raises `ValueError`."""
    age_s = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if age_s is not None and not 0 <= age_s < float("inf"):
        raise ValueError(f"max_age is a number of seconds, 0 or more, or a timedelta, not {max_age!r}")
    return age_s


def checked_part(part: tuple[int, int] | None, exactly_once: bool) -> tuple[int, int]:
    """Which part, counted from 0, of how many. Raises `ValueError`."""
    if part is None:
        return 0, 1
    try:
        number, parts = part
        is_good = all(type(each) is int for each in part) and 1 <= number <= parts <= MAX_PARTS
    except (TypeError, ValueError):
        is_good = False
    if not is_good:
        raise ValueError(f"part is (k, n), part k of n, 1 <= k <= n <= {MAX_PARTS}, not {part!r}")
    if exactly_once and parts > 1:
        raise ValueError(
            "exactly_once and several parts do not go together: what one process handles is exactly-once only if it "
            "alone moves the offset; spread the work over channels instead"
        )
    return number - 1, parts


def checked_key(key: Any) -> Key | None:
    """Give it back. Raises `TypeError`."""
    if key is not None and (not callable(key) or is_coroutine_function(key)):
        raise TypeError(f"key is a plain function of a message that gives a str, not {key!r}")
    return key  # type: ignore[no-any-return]
