"""One channel on its way to one peer: lines behind the peer's position, which moves as the peer acknowledges."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import HeldCursor
from keyop.attachment.tail import Tail
from keyop.federation.record import Record
from keyop.federation.route import Link, Stays
from keyop.storage.offsets import read_offset
from keyop.storage.segments import channel_end, list_segments

# What one look into the files brings, and keeps in memory until it is sent.
_READ_BYTES = 128 * 1024
SECOND_LOOK_S = 0.01
"""A line that does not parse is looked at again after this: it may be half written."""

# Further from the end than this a line is what it is.
_SETTLED_BYTES = 1 << 20
# A channel that has not grown, by what the board says, is looked at all the same after so many ticks: 10 s.
_TICKS_OF_TRUST = 20

OnStay = Callable[[str, Record, Stays], None]
OnGap = Callable[[str, int, int], None]


class Feed:
    """The channel as the peer gets it. `take` gives lines, `acknowledged` and `rewind` say what became of them."""

    def __init__(
        self, attachment: Attachment, channel: str, position_id: str | None, on_stay: OnStay, on_gap: OnGap
    ) -> None:
        """``position_id`` None: the peer is ephemeral, it gets what comes from now on, and nobody remembers how far.

        ``on_stay(channel, record, why)`` hears of each line that is not sent, ``on_gap(channel, from, to)`` of
        offsets that were removed before they were sent.
        """
        self.channel = channel
        self._attachment = attachment
        self._position_id = position_id
        self._held = HeldCursor(attachment, channel, position_id) if position_id is not None else None
        self._on_stay = on_stay
        self._on_gap = on_gap
        self._lines: list[bytes] = []
        self._next = 0
        self._read_to = 0
        # Where what is in flight ends, by batch.
        self._in_flight: deque[tuple[int, int]] = deque()
        # Whether the files said what will stand there, when the lines were read.
        self._is_settled = True
        self._doubt: tuple[int, float] = (-1, 0.0)
        self._looked = 0
        self.position = 0
        """Everything before this global offset is acknowledged, or not for the peer."""
        self.has_more = False
        """Whether `take` stopped although there is more, because so much stays here."""
        self.gap: tuple[int, int] | None = None
        """Of a position that lay below the first segment when it was opened: from where to where it was moved."""

    def open(self, start: int | None, deadline: float | None = None) -> None:
        """Have the writer grant the position; ``start`` is for a new one, None is the channel's end. Blocks.

        Raises `SubscriberBusy`, `WriterUnavailable`, `PublishTimeout`, `OSError`.
        """
        directory = self._attachment.directory
        if self._held is not None:
            assert self._position_id is not None
            before = read_offset(directory.offset_file(self.channel, self._position_id))
            self.position = self._held.open(start, deadline=deadline).offset
            segments, _foreign = list_segments(directory.channel(self.channel))
            if before is not None and segments and before.value < segments[0].start == self.position:
                self.gap = (before.value, self.position)
        else:
            self.position = channel_end(directory.channel(self.channel))
        self._read_to = self.position
        self._tail = Tail(
            self._attachment, self.channel, self.position, self._skipped, lambda: None, chunk_bytes=_READ_BYTES
        )

    def take(self, link: Link, most_bytes: int) -> list[Record]:
        """Records for the peer, up to a number of bytes (at least one, if there is one). Raises `OSError`."""
        taken: list[Record] = []
        room = most_bytes
        passed_bytes = 0
        self.has_more = False
        while room > 0 and self._have_lines():
            if passed_bytes > _READ_BYTES:
                self.has_more = True  # others on the loop have their turn
                break
            line = self._lines[self._next]
            record, stays = link.outbound(line)
            if stays is None:
                if taken and len(record.line) + 4 > room:
                    break
                taken.append(record)
                room -= len(record.line) + 4
            elif stays is Stays.UNREADABLE and self._in_doubt():
                break
            else:
                self._on_stay(self.channel, record, stays)
                passed_bytes += len(line)
            self._next += 1
            self._read_to += len(line) + 1
        if not taken:
            self._pass_over()
        return taken

    def _have_lines(self) -> bool:
        if self._next < len(self._lines):
            return True
        if self._held is not None and self._held.refresh():
            self._held.move(self.position)
        if not self._may_have_grown():
            return False
        self._is_settled = self._tail.settled
        batch = self._tail.read()
        if batch is None:
            self._lines, self._next, self._read_to = [], 0, self._tail.offset
            return False
        self._lines, self._next, self._read_to = batch.lines, 0, batch.start
        return True

    def _may_have_grown(self) -> bool:
        """A look at the board instead of one into the directory: fifty idle peers with four channels each ask often."""
        ticks = self._attachment.ticks
        if self._tail.end == self._tail.offset and ticks - self._looked < _TICKS_OF_TRUST:
            return False
        self._looked = ticks
        return True

    def _in_doubt(self) -> bool:
        """Whether the next line may be one that is still being written: it is read again a little later."""
        offset, since_s = self._doubt
        now_s = time.monotonic()
        if not self._is_settled:
            self._doubt = (self._read_to, now_s)  # nothing is judged while the writer waits for its disk
        elif offset == self._read_to:
            if now_s - since_s >= SECOND_LOOK_S:
                return False
        elif self._attachment.channel_end(self.channel) - self._read_to > _SETTLED_BYTES:
            return False
        else:
            self._doubt = (self._read_to, now_s)
        self._seek(self._read_to)
        return True

    @property
    def doubtful(self) -> bool:
        """Whether to look again soon although nothing has grown."""
        return self._doubt[0] == self._read_to

    def _pass_over(self) -> None:
        """What was read and stays here counts as done with, behind what is under way."""
        if self._in_flight:
            self._in_flight[-1] = (self._in_flight[-1][0], self._read_to)
        elif self._read_to > self.position:
            self._move(self._read_to)

    def sent(self, number: int) -> None:
        """What was taken last is under way as (part of) a batch."""
        self._in_flight.append((number, self._read_to))

    def acknowledged(self, number: int) -> None:
        """The peer has a batch: the position moves behind what it held of this channel."""
        if self._in_flight and self._in_flight[0][0] == number:
            self._move(self._in_flight.popleft()[1])

    def _move(self, offset: int) -> None:
        self.position = offset
        if self._held is not None:
            self._held.move(offset)

    def rewind(self) -> None:
        """The connection is gone: go on behind what was acknowledged."""
        self._in_flight.clear()
        self._seek(self.position)

    def _seek(self, offset: int) -> None:
        self._lines, self._next, self._read_to = [], 0, offset
        self._tail.seek(offset)
        self._looked = -_TICKS_OF_TRUST

    def _skipped(self, skipped_bytes: int) -> None:
        self._on_gap(self.channel, self._read_to, self._read_to + skipped_bytes)

    @property
    def behind_bytes(self) -> int:
        """How much of the channel is not acknowledged."""
        return max(0, self._attachment.channel_end(self.channel) - self.position)

    def close(self, deadline: float | None = None) -> None:
        """Give the position back to the writer. Blocks. Raises `KeyopError`."""
        self._tail.close()
        if self._held is not None:
            self._held.close(deadline=deadline)


def start_of_new(attachment: Attachment, channel: str, position_id: str, raw_id: str) -> int | None:
    """Where a position that does not exist yet begins: None for the channel's end.

    Go releases up to 1.21 wrote the file under the peer's raw name: what it says is gone on from.
    """
    if "/" in raw_id or "\0" in raw_id or raw_id == position_id:
        return None
    parsed = read_offset(attachment.directory.offset_file(channel, raw_id))
    return None if parsed is None else parsed.value
