"""What a subscription may be told, as one small value."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from keyop.subscriber.delivery import RetryPolicy

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
