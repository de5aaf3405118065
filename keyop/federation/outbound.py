"""What one peer is to get: its channels in turn, a batch at a time, and its positions as it acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError
from keyop.federation.audit import Audit
from keyop.federation.feed import Feed, start_of_new
from keyop.federation.limits import Limits
from keyop.federation.record import Record
from keyop.federation.route import Link, Stays
from keyop.federation.wire import PIPELINED

# A turn of one channel: small enough that a channel with a backlog of a day holds up nobody's fresh messages.
TURN_BYTES = 128 * 1024
# With a peer that takes one batch at a time, which costs a round trip and a sync of its disk each.
SINGLE_TURN_BYTES = 1 << 20


class Parcel:
    """Records of one batch, and the feeds that they came from."""

    __slots__ = ("feeds", "records", "size_bytes")

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.records: list[Record] = []
        self.size_bytes = 0

    @property
    def lines(self) -> list[bytes]:
        """What to send."""
        return [record.line for record in self.records]


class Outbound:
    """The sending half of one connection. All but `open` and `close` is called on the loop and does not block."""

    def __init__(
        self,
        attachment: Attachment,
        channels: Iterable[str],
        position_id: str | None,
        raw_id: str,
        limits: Limits,
        audit: Audit,
    ) -> None:
        """``position_id``: from `PositionNames`, None for an ephemeral peer. ``raw_id``: the same unsanitised."""
        self._attachment = attachment
        self._position_id = position_id
        self._raw_id = raw_id
        self._limits = limits
        self._audit = audit
        self._link: Link | None = None
        self._turn_bytes = TURN_BYTES
        self.feeds = {channel: Feed(attachment, channel, position_id, self._stays, self._gap) for channel in channels}
        # Feeds that may have something, in the order of their turns.
        self._ready: dict[str, None] = dict.fromkeys(self.feeds)
        self._collected: Parcel | None = None
        self._under_way: dict[int, Parcel] = {}
        self.too_big = 0
        """Records that were passed over because the peer would not take them."""
        self.held = 0
        """Records that the peer has already, by their route."""

    async def open(self) -> None:
        """Open all positions. Raises `SubscriberBusy`, `WriterUnavailable`; nothing stays open then."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        opened: list[Feed] = []
        try:
            for channel, feed in self.feeds.items():
                id = self._position_id
                feed.open(start_of_new(self._attachment, channel, id, self._raw_id) if id is not None else None)
                opened.append(feed)
        except BaseException:
            for feed in opened:
                feed.close()
            raise

    def connected(self, link: Link, features: frozenset[str]) -> None:
        """A connection begins, or begins anew: what was under way is sent again."""
        self._link = link
        pipelined = PIPELINED in features
        self._turn_bytes = min(TURN_BYTES if pipelined else SINGLE_TURN_BYTES, self._limits.max_batch_bytes)
        self._under_way.clear()
        for feed in self.feeds.values():
            feed.rewind()
        self._ready = dict.fromkeys(self.feeds)

    def grown(self, channels: Iterable[str]) -> bool:
        """Channels have grown; whether any of them is for this peer."""
        concerned = [channel for channel in channels if channel in self.feeds]
        for channel in concerned:
            self._ready.setdefault(channel)
        return bool(concerned)

    def collect(self) -> Parcel | None:
        """The next batch; None if there is nothing to send now. Raises `OSError`.

        Small pieces of several channels travel together; a channel that fills its turn goes to the end of the line.
        """
        assert self._link is not None
        parcel = Parcel()
        for _ in range(len(self._ready)):
            channel = next(iter(self._ready))
            del self._ready[channel]
            feed = self.feeds[channel]
            records = feed.take(self._link, self._turn_bytes - parcel.size_bytes)
            if records:
                parcel.feeds.append(feed)
                parcel.records += records
                parcel.size_bytes += sum(len(record.line) + 4 for record in records)
                self._ready[channel] = None  # it may have more
            elif feed.doubtful:
                self._ready[channel] = None
            if parcel.size_bytes >= self._turn_bytes:
                break
        self._collected = parcel if parcel.records else None
        return self._collected

    def sent(self, number: int) -> None:
        """What was collected last is under way as batch ``number``."""
        assert self._collected is not None
        parcel, self._collected = self._collected, None
        self._under_way[number] = parcel
        for feed in parcel.feeds:
            feed.sent(number)

    def acknowledged(self, number: int, took_s: float) -> None:
        """The peer has batch ``number``."""
        parcel = self._under_way.pop(number, None)
        if parcel is None:
            return
        for feed in parcel.feeds:
            feed.acknowledged(number)
        messages = [(record.head.channel, record.head.id) for record in parcel.records]
        self._audit.forwarded("outbound", self._peer, messages, took_s)

    @property
    def _peer(self) -> str:
        return self._link.peer_name if self._link is not None else ""

    def _stays(self, channel: str, record: Record, why: Stays) -> None:
        if why is Stays.HELD:
            self.held += 1
        elif why is Stays.TOO_BIG:
            self.too_big += 1
            self._audit.event(
                "policy_violation",
                message_id=record.head.id,
                channel=channel,
                direction="outbound",
                peer=self._peer,
                detail=record.detail,
            )

    def _gap(self, channel: str, from_offset: int, to_offset: int) -> None:
        self._audit.event(
            "replay_gap",
            channel=channel,
            direction="outbound",
            peer=self._peer,
            detail=f"from={from_offset} to={to_offset} bytes={to_offset - from_offset}",
        )

    @property
    def doubtful(self) -> bool:
        """Whether to collect again soon although nothing has grown: a line may have been half written."""
        return any(self.feeds[channel].doubtful for channel in self._ready)

    @property
    def behind_bytes(self) -> int:
        """How much of its channels the peer has not acknowledged."""
        return sum(feed.behind_bytes for feed in self.feeds.values())

    def touch(self) -> None:
        """Note the time of its leaving at its offset files: they are swept when that is long ago."""
        for channel in self.feeds:
            if self._position_id is not None:
                with contextlib.suppress(OSError):
                    os.utime(self._attachment.directory.offset_file(channel, self._position_id))

    async def close(self, deadline: float | None = None) -> None:
        """Give all positions back. What the writer does not take in time it takes from the port later."""
        await asyncio.to_thread(self._close, deadline)

    def _close(self, deadline: float | None) -> None:
        for feed in self.feeds.values():
            try:
                feed.close(deadline)
            except KeyopError:
                pass
