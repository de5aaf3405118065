"""Which of many channels have grown, by what the board says: one look in C for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Any

from keyop.attachment.attachment import Attachment

# Of an end the lower half alone is looked at. That it stays while the upper one changes takes 4 GiB between two looks,
# and then a look at the files finds it.
_LOW_WORD = 2


_NEVER = -1


class Growth:
    """`watch` channels, then ask for those that have `grown` as often as there may be some, before they are read.

    One thread does that. Any thread may ask whether there are `any`.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._words: Any = None
        # One object, replaced as a whole: another thread may be looking.
        self._look: tuple[Sequence[str], Callable[[Any], tuple[int, ...]], tuple[int, ...]] = ((), _nothing, ())
        self._absent: set[str] = set()

    def watch(self, channels: Collection[str]) -> None:
        """Look at these from now on. One that was not watched before counts as grown."""
        board = self._attachment.writer.board
        before = dict(zip(self._look[0], self._look[2], strict=True)) if board.words is self._words else {}
        found = {channel: board.find(channel.encode()) for channel in channels}
        placed = {channel: place for channel, place in found.items() if place is not None}
        self._words = board.words
        self._absent = set(found) - set(placed)
        getter = _getter([place + _LOW_WORD for place in placed.values()])
        self._look = (list(placed), getter, tuple(before.get(channel, _NEVER) for channel in placed))

    def place(self) -> None:
        """To be called with each tick: some that were not on the board may be there now."""
        board = self._attachment.writer.board
        if any(board.find(channel.encode()) is not None for channel in self._absent):
            self.watch({*self._look[0], *self._absent})

    def any(self) -> bool:
        """Whether any has grown, or there is another writer with another board. From any thread."""
        _channels, getter, seen = self._look
        words = self._words
        return words is not self._attachment.writer.words or getter(words) != seen

    def grown(self) -> list[str]:
        """Those that have grown since the last call."""
        if self._words is not self._attachment.writer.words:
            self.watch({*self._look[0], *self._absent})
        channels, getter, seen = self._look
        now = getter(self._words)
        if now == seen:
            return []
        self._look = (channels, getter, now)
        return [channel for channel, before, after in zip(channels, seen, now, strict=True) if before != after]


def _nothing(_words: Any) -> tuple[int, ...]:
    return ()


def _getter(indices: list[int]) -> Callable[[Any], tuple[int, ...]]:
    if not indices:
        return _nothing
    if len(indices) == 1:
        index = indices[0]
        return lambda words: (words[index],)
    return itemgetter(*indices)
