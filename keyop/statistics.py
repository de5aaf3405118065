"""What a messenger can say of itself: plain values, read off the board and the slots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from keyop.attachment.attachment import Attachment
from keyop.subscriber.subscription import Subscription


@dataclass(frozen=True, slots=True)
class SubscriberStatistics:
    """One subscription of this messenger. Counts are since it was opened."""

    channel: str
    id: str
    offset: int
    """Where its next message begins, in bytes."""
    lag_bytes: int
    """What the channel holds beyond that; never negative."""
    handled: int
    failed: int
    """Attempts that raised."""
    dead_lettered: int
    deferred: int
    """Times that a handler raised `RetryLater`."""
    damaged: int
    """Records that could not be read and were passed over."""
    skipped_bytes: int
    """What had been removed, or was too old, before it could be read."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The writer's counts since it was started, and this messenger's subscriptions."""

    writer_state: str
    strict: bool
    frames: int
    """Group commits."""
    syncs: int
    """Syncs of the journal."""
    refused: int
    """Transactions that the writer refused."""
    subscribers: list[SubscriberStatistics] = field(default_factory=list)


def gather(attachment: Attachment, subscriptions: Iterable[Subscription]) -> Statistics:
    """Look at the board and the subscriptions."""
    counters = attachment.writer.board.counters()
    return Statistics(
        writer_state=attachment.writer.state(),
        strict=attachment.writer.strict,
        frames=counters["frames"],
        syncs=counters["syncs"],
        refused=counters["refused"],
        subscribers=[_subscriber(attachment, subscription) for subscription in list(subscriptions)],
    )


def _subscriber(attachment: Attachment, subscription: Subscription) -> SubscriberStatistics:
    end = attachment.channel_end(subscription.channel)
    offset = subscription.offset
    return SubscriberStatistics(
        channel=subscription.channel,
        id=subscription.id,
        offset=offset,
        lag_bytes=max(0, end - offset),
        **subscription.totals,
    )
