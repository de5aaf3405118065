"""What a messenger can say of itself: plain values, read off the board and the slots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from keyop.attachment.attachment import Attachment
from keyop.inspection import presence
from keyop.inspection.timings import timings_of
from keyop.ipc import layout
from keyop.ipc.histogram import Distribution
from keyop.publishing.publish_times import PublishTimes
from keyop.subscriber.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, in seconds; None where nothing was counted yet.

    Counted in buckets of which each reaches twice as far as the one before it, from 8 microseconds to 18 minutes: a
    quantile is in the right bucket, and near the truth.
    """

    count: int
    """How many times it was. Of quick handlers and of publishes in flight some are timed for all."""
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, times: Distribution) -> Latency:
        """What a histogram says."""
        p50_s, p90_s, p99_s = (times.quantile_s(part) for part in (0.5, 0.9, 0.99))
        return cls(times.total, times.mean_s, p50_s, p90_s, p99_s)


_NOTHING = Latency.of(Distribution())


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
    delivery_age: Latency = _NOTHING
    """From publish, by the publisher's clock, to the first run of the handler."""
    handler_time: Latency = _NOTHING
    """Of each attempt, whether it returned or raised."""
    part: int = 1
    """Which of ``parts`` that share the work of the id, counted from 1."""
    parts: int = 1


@dataclass(frozen=True, slots=True)
class PublishStatistics:
    """What this messenger published to one channel and waited for until it was on the disk."""

    channel: str
    """Beyond the first 32 channels all together, as ``(others)``; transactions of ``atomic()`` as ``(atomic)``."""
    to_disk: Latency


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """Another host, as hub or client of this data directory stand with it; counts are since that process began."""

    role: str
    """What this host is to it: ``hub`` or ``client``."""
    name: str
    """The CN of its certificate; empty while that is not known."""
    address: str
    state: str
    """``connected``, ``away``, or ``refused``: it does not let this host in."""
    sent: int
    """Messages that it has acknowledged."""
    received: int
    """Messages that it has brought."""
    behind_bytes: int
    """What it has not acknowledged of its channels."""
    waiting_bytes: int
    """What it has sent and what is not on the disk yet."""
    round_trip: Latency
    """Of batches, from sending to acknowledgement: the network, and the peer's disk."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The writer's counts since it was started, and this messenger's subscriptions, publishes and peers."""

    writer_state: str
    """``open``; ``stalled`` and why, while the disk is full or fails: nothing is acknowledged then."""
    strict: bool
    frames: int
    """Group commits."""
    syncs: int
    """Syncs of the journal."""
    refused: int
    """Transactions that the writer refused."""
    subscribers: list[SubscriberStatistics] = field(default_factory=list)
    published: list[PublishStatistics] = field(default_factory=list)
    peers: list[PeerStatistics] = field(default_factory=list)
    """Empty without a hub or a client on this data directory."""
    ring_bytes: int = layout.RING_SIZE_BYTES
    """What this process can hand to the writer before publish waits."""
    ring_used_bytes: int = 0
    """How much of it the writer has not taken yet."""
    commit: Latency = _NOTHING
    """The writer's group commits that were synced: from the look at the rings to the answers."""
    sync: Latency = _NOTHING
    """Syncs of the journal alone: the disk."""


def gather(attachment: Attachment, times: PublishTimes, subscriptions: Iterable[Subscription]) -> Statistics:
    """Look at the board, the subscriptions, and the ports of hub and client."""
    board = attachment.writer.board
    counters = board.counters()
    return Statistics(
        writer_state=attachment.writer.state(),
        strict=attachment.writer.strict,
        frames=counters["frames"],
        syncs=counters["syncs"],
        refused=counters["refused"],
        subscribers=[_subscriber(attachment, subscription) for subscription in list(subscriptions)],
        published=[PublishStatistics(channel, Latency.of(each)) for channel, each in sorted(times.read().items())],
        peers=_peers(attachment),
        ring_used_bytes=attachment.ring_used_bytes,
        commit=Latency.of(board.times(layout.BOARD_COMMIT_TIMES)),
        sync=Latency.of(board.times(layout.BOARD_SYNC_TIMES)),
    )


def _subscriber(attachment: Attachment, subscription: Subscription) -> SubscriberStatistics:
    end = attachment.channel_end(subscription.channel)
    offset = subscription.offset
    ages, handler_times = subscription.times
    return SubscriberStatistics(
        channel=subscription.channel,
        id=subscription.id,
        offset=offset,
        lag_bytes=max(0, end - offset),
        **subscription.totals,
        delivery_age=Latency.of(ages),
        handler_time=Latency.of(handler_times),
        part=subscription.part + 1,
        parts=subscription.parts,
    )


def _peers(attachment: Attachment) -> list[PeerStatistics]:
    directory = attachment.directory
    if not any(presence.is_held(directory, f"{role}.lock") for role in layout.ROLE_NAMES.values()):
        return []
    found = []
    for name, alive, port in presence.ports(directory):
        if alive and port is not None and port.role in layout.ROLE_NAMES:
            round_trips = timings_of(port).round_trips
            process = presence.describe(port, name, alive)
            found += [_peer(process.role, peer, round_trips) for peer in process.peers]
    return found


def _peer(role: str, peer: presence.LivePeer, round_trips: dict[tuple[str, str], Distribution]) -> PeerStatistics:
    return PeerStatistics(
        role=role,
        name=peer.name,
        address=peer.address,
        state=peer.state,
        sent=peer.sent,
        received=peer.received,
        behind_bytes=peer.behind_bytes,
        waiting_bytes=peer.waiting_bytes,
        round_trip=Latency.of(round_trips.get((peer.name, peer.address), Distribution())),
    )
