"""What one peer is to get: its channels in turn, a batch at a time, and its positions as it acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError
from keyop.federation.audit import MAX_ID, Audit
from keyop.federation.feed import SECOND_LOOK_S, Feed, start_of_new
from keyop.federation.record import Record
from keyop.federation.route import Link, Stays
from keyop.federation.traffic import Traffic
from keyop.names import is_replay

# More would fill the table of answers, which is emptied twice a second then.
_AT_ONCE = 4


class Parcel:
    """Records of one batch, and the feeds that they came from."""

    __slots__ = ("feeds", "lines", "messages", "size_bytes")

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.lines: list[bytes] = []
        """What to send."""
        self.messages: list[tuple[str, str]] = []
        """Channel and id of each."""
        self.size_bytes = 0
        """Length on the wire."""

    def add(self, feed: Feed, records: list[Record]) -> None:
        """Take what a feed gives."""
        self.feeds.append(feed)
        for record in records:
            self.lines.append(record.line)
            self.messages.append((record.head.channel, record.head.id))
            self.size_bytes += len(record.line) + 4


class Outbound:
    """The sending half of one connection. All but `open` and `close` is called on the loop and does not block."""

    def __init__(
        self,
        attachment: Attachment,
        channels: Iterable[str],
        position_id: str | None,
        raw_id: str,
        audit: Audit,
        traffic: Traffic,
    ) -> None:
        """``position_id``: from `PositionNames`, None for an ephemeral peer. ``raw_id``: the same unsanitised."""
        self._attachment = attachment
        self._position_id = position_id
        self._raw_id = raw_id
        self._audit = audit
        self._traffic = traffic
        self._link: Link | None = None
        self.feeds = {
            channel: Feed(attachment, channel, position_id, self._stays, self._gap)
            for channel in channels
            if not is_replay(channel)  # its envelopes name the channel that they were published to
        }
        """By channel. What was put back stays on its host."""
        # Feeds that may have something, in the order of their turns.
        self._ready: dict[str, None] = dict.fromkeys(self.feeds)
        self._collected: Parcel | None = None
        self._under_way: dict[int, Parcel] = {}
        # Why a channel cannot be read.
        self._unread: dict[str, int | None] = {}
        self.too_big = 0
        """Records that were passed over because the peer would not take them."""
        self.held = 0
        """Records that the peer has already, by their route."""

    async def open(self, deadline: float | None = None) -> None:
        """Open all positions. Raises `KeyopError`, `OSError`; nothing stays open then."""
        await asyncio.to_thread(self._open, deadline)

    def _open(self, deadline: float | None) -> None:
        opened: list[Feed] = []

        def open_one(feed: Feed) -> None:
            id = self._position_id
            start = start_of_new(self._attachment, feed.channel, id, self._raw_id) if id is not None else None
            feed.open(start, deadline)
            opened.append(feed)

        try:
            _several_at_once(open_one, self.feeds.values())
        except BaseException:
            for feed in opened:
                with contextlib.suppress(KeyopError):
                    feed.close(deadline)
            raise

    def connected(self, link: Link) -> None:
        """A connection begins, or begins anew: what was under way is sent again."""
        self._link = link
        self._collected = None
        self._under_way.clear()
        for feed in self.feeds.values():
            feed.rewind()
            if feed.gap is not None:
                self._gap(feed.channel, *feed.gap)
                feed.gap = None
        self._ready = dict.fromkeys(self.feeds)

    def grown(self, channels: Iterable[str]) -> bool:
        """Channels have grown; whether any of them is for this peer."""
        concerned = [channel for channel in channels if channel in self.feeds]
        for channel in concerned:
            self._ready.setdefault(channel)
        return bool(concerned)

    def collect(self, most_bytes: int) -> Parcel | None:
        """The next batch; None if there is nothing to send now.

        Small pieces of several channels travel together; a channel that fills its turn goes to the end of the line. One
        that cannot be read waits for the next tick, and holds up no other.
        """
        assert self._link is not None
        parcel = Parcel()
        for _ in range(len(self._ready)):
            channel = next(iter(self._ready))
            del self._ready[channel]
            feed = self.feeds[channel]
            try:
                records = feed.take(self._link, most_bytes - parcel.size_bytes)
            except OSError as error:
                self._cannot_read(channel, error)
                continue
            self._unread.pop(channel, None)
            if records:
                parcel.add(feed, records)
                self._ready[channel] = None  # it may have more
            elif feed.doubtful or feed.has_more:
                self._ready[channel] = None
            if parcel.size_bytes >= most_bytes:
                break
        self._collected = parcel if parcel.lines else None
        return self._collected

    def sent(self, number: int) -> None:
        """What was collected last is under way as batch ``number``."""
        assert self._collected is not None
        parcel, self._collected = self._collected, None
        parcel.lines = []  # they stand in the files if they are needed again
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
        self._traffic.went(len(parcel.messages))
        self._audit.forwarded("outbound", self._peer, parcel.messages, took_s)

    @property
    def _peer(self) -> str:
        return self._link.peer_name if self._link is not None else ""

    def _cannot_read(self, channel: str, error: OSError) -> None:
        if self._unread.get(channel) != error.errno:
            self._unread[channel] = error.errno
            self._attachment.logger.error("%s: %s cannot be read: %s", self._peer, channel, error)

    def _stays(self, channel: str, record: Record, why: Stays) -> None:
        if why is Stays.HELD:
            self.held += 1
        elif why is Stays.TOO_BIG:
            self.too_big += 1
            self._audit.event(
                "policy_violation",
                message_id=record.head.id[:MAX_ID],
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
    def again_s(self) -> float | None:
        """In how many seconds to collect again although nothing grows; None: not before something does."""
        if any(self.feeds[channel].has_more for channel in self._ready):
            return 0.0
        # A line may have been half written.
        return SECOND_LOOK_S if any(self.feeds[channel].doubtful for channel in self._ready) else None

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
        def close_one(feed: Feed) -> None:
            with contextlib.suppress(KeyopError):
                feed.close(deadline)

        _several_at_once(close_one, self.feeds.values())


def _several_at_once(work: Callable[[Feed], None], feeds: Collection[Feed]) -> None:
    """Each costs a sync of the disk, and several share one: a peer with a thousand channels has ten seconds for all.

    Raises the first error, when all that had begun are done.
    """
    if len(feeds) <= 1:
        for feed in feeds:
            work(feed)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(feeds)), "keyop-positions") as pool:
        futures = [pool.submit(work, feed) for feed in feeds]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
