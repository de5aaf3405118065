"""Channels that have grown, told to an event loop: one thread waits on the port's semaphore for all of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from keyop.attachment.attachment import TICK_S, Attachment
from keyop.errors import KeyopError
from keyop.ipc.board import Board
from keyop.protocol import entry


class News:
    """Calls ``listener(channels)`` on the loop when channels have grown, and with all of them twice a second.

    The board is a hint: what it does not say is found at the next tick.
    """

    def __init__(
        self, attachment: Attachment, loop: asyncio.AbstractEventLoop, listener: Callable[[set[str]], None]
    ) -> None:
        self._attachment = attachment
        self._loop = loop
        self._listener = listener
        self._lock = threading.Lock()
        self._followed: dict[str, int] = {}
        # The end last seen of each followed channel, and its place on the board that was looked at.
        self._ends: dict[str, int | None] = {}
        self._places: dict[str, int | None] = {}
        self._board: Board | None = None
        # What the writer has not been told yet: whether to post for a channel. A subscription's cursor would tell it;
        # ephemeral peers have none.
        self._untold: dict[str, int] = {}
        # Those that do not exist yet. To tell the writer of them would make them, and a peer may make up names.
        self._absent: set[str] = set()
        self._ticks = attachment.ticks
        self._closed = False
        threading.Thread(target=self._watch, name="keyop-news", daemon=True).start()

    def follow(self, channel: str) -> None:
        """Listen for a channel; as often as it is followed it has to be left."""
        with self._lock:
            self._followed[channel] = self._followed.get(channel, 0) + 1
            if self._followed[channel] == 1:
                if self._attachment.directory.channel(channel).is_dir():
                    self._untold[channel] = 1
                else:
                    self._absent.add(channel)
                self._tell()
        self._attachment.data_gate.knock()

    def leave(self, channel: str) -> None:
        """Listen for it no more."""
        with self._lock:
            self._followed[channel] -= 1
            if not self._followed[channel]:
                del self._followed[channel]
                self._ends.pop(channel, None)
                self._places.pop(channel, None)
                if channel in self._absent:
                    self._absent.remove(channel)
                else:
                    self._untold[channel] = 0
                    self._tell()

    def _tell(self) -> None:
        """What the ring has no room for now is told at the next tick."""
        for channel, value in list(self._untold.items()):
            item = entry.encode(entry.FOLLOW, channel.encode(), value=value)
            try:
                position = self._attachment.try_send(entry.TRANSACTION.pack(0) + item)
            except KeyopError:
                return
            if position is None:
                return
            self._attachment.replies.expected.discard(position)
            del self._untold[channel]

    def _watch(self) -> None:
        gate = self._attachment.data_gate
        while not self._closed:
            try:
                gate.wait(self._any)
                grown = self._grown()
            except Exception:
                # Without this thread nothing is sent any more, and nobody would know why.
                self._attachment.logger.exception("news of channels")
                time.sleep(TICK_S)
                continue
            if grown and not self._closed:
                try:
                    self._loop.call_soon_threadsafe(self._listener, grown)
                except RuntimeError:
                    return  # the loop is closed

    def _any(self) -> bool:
        if self._closed or self._attachment.ticks != self._ticks:
            return True
        with self._lock:
            return any(self._has_grown(channel) for channel in self._followed)

    def _grown(self) -> set[str]:
        with self._lock:
            ticks = self._attachment.ticks
            if ticks != self._ticks:
                self._ticks = ticks
                grown = set(self._followed)
                self._look_for_absent()
                self._tell()
            else:
                grown = set(filter(self._has_grown, self._followed))
            for channel in grown:
                self._ends[channel] = self._end(channel)
            return grown

    def _has_grown(self, channel: str) -> bool:
        return channel not in self._absent and self._end(channel) != self._ends.get(channel)

    def _look_for_absent(self) -> None:
        """Channels that have come into being meanwhile are on the board."""
        for channel in [channel for channel in self._absent if self._end(channel) is not None]:
            self._absent.remove(channel)
            self._untold[channel] = 1

    def _end(self, channel: str) -> int | None:
        board = self._attachment.writer.board
        if board is not self._board:
            self._board = board
            self._places.clear()
            self._untold.update(dict.fromkeys(self._followed.keys() - self._absent, 1))  # another writer
        place = self._places.get(channel)
        if place is None:
            place = board.find(channel.encode())
            self._places[channel] = place
        return None if place is None else board.end(place)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._attachment.data_gate.knock()
