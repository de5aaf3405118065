"""A subscriber's eye on its channel: whole lines as they come, and a wait for news that costs nothing while idle."""

from __future__ import annotations

from collections.abc import Callable

from keyop.attachment.attachment import Attachment
from keyop.ipc import layout
from keyop.storage.segment_reader import CHUNK_BYTES, Batch, Event, SegmentReader


class Tail:
    """Reads one channel for one subscription. ``on_skipped(bytes)`` and ``on_damaged()`` count what is passed over."""

    def __init__(
        self,
        attachment: Attachment,
        channel: str,
        offset: int,
        on_skipped: Callable[[int], None],
        on_damaged: Callable[[], None],
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._attachment = attachment
        self._log = attachment.logger.getChild("subscriber")
        self._channel = channel
        self._name = channel.encode()
        self._directory = attachment.directory.channel(channel)
        self._reader = SegmentReader(self._directory, offset, chunk_bytes=chunk_bytes)
        self._on_skipped = on_skipped
        self._on_damaged = on_damaged
        self._board: object = None
        self._place: int | None = None
        self._seen_end: int | None = -1
        self._ticks = -1

    @property
    def offset(self) -> int:
        """Where the next line begins."""
        return self._reader.offset

    @property
    def end(self) -> int | None:
        """Where the channel ends, by what the board says; None if it says nothing now."""
        return self._board_end()

    @property
    def settled(self) -> bool:
        """Whether what is damaged or missing in the files may be judged; to be asked before one looks at them.

        Not while the writer waits for a failing disk: what a failed sync has lost may read as zeros then, and is
        written again.
        """
        return bool(self._attachment.writer.words[layout.STATE] != layout.STALLED)

    def seek(self, offset: int) -> None:
        """Go on reading elsewhere."""
        self._reader.close()
        self._reader.offset = offset

    def read(self) -> Batch | None:
        """The next whole lines; None if there are none now. Raises `OSError`."""
        self._look()
        batch = self._reader.read_batch(relist=self._relist, settled=self.settled)
        if self._reader.events:
            self._report()
        return batch

    def _look(self) -> None:
        """Remember what the board and the tick say, before reading: what changes later is news."""
        ticks = self._attachment.ticks
        self._relist = ticks != self._ticks
        self._ticks = ticks
        self._seen_end = self._board_end()

    def _board_end(self) -> int | None:
        board = self._attachment.writer.board
        if board is not self._board or self._place is None:
            self._board = board
            self._place = board.find(self._name)
        return board.end(self._place) if self._place is not None else None

    def grown(self) -> bool:
        """Whether the channel has grown since the last read or `note_growth`, by what the board says."""
        return self._board_end() != self._seen_end

    def note_growth(self) -> None:
        """What has come until now is no news any more. A read finds it all the same."""
        self._seen_end = self._board_end()

    def news(self) -> bool:
        """Whether there is reason to read: it has grown, or a tick has passed, in case the board is wrong."""
        return self._board_end() != self._seen_end or self._attachment.ticks != self._ticks

    def rest(self) -> None:
        """Give the descriptor up; the next read opens the segment again."""
        self._reader.close()

    def _report(self) -> None:
        for event in self._reader.events:
            self._log.warning("%s", event)
            if event.event is Event.OVERSIZED or event.event is Event.TORN:
                self._on_damaged()
            elif event.event is not Event.FOREIGN and event.to_offset > event.from_offset:
                self._on_skipped(event.to_offset - event.from_offset)
        self._reader.events.clear()

    def close(self) -> None:
        """Give the descriptor up, and let go of the subscription: in a circle its attachment would stay mapped."""
        self._reader.close()
        self._on_skipped = self._on_damaged = _count_no_more


def _count_no_more(_count: int = 0) -> None:
    pass
