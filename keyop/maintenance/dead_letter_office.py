"""Putting messages back for the subscriber that failed at them, and discarding dead letters.

Each letter is one step: what is appended to the replay channel and the mark that says so are in one transaction. So the
command may be killed at any moment, and given again: what is marked is done. While it works it holds a cursor at the
start of the dead-letter channel. Two of them cannot work at once, and one that was killed has its last transaction
committed before the next one looks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import HeldCursor, transaction
from keyop.configuration.settings import Settings
from keyop.errors import PayloadError, SubscriberBusy
from keyop.inspection.dead_letters import DeadLetter, DeadLetters, OriginalLost, Selection, original_of
from keyop.inspection.survey import subscriber_ids
from keyop.messages.dead_letter import DISCARDED, REPLAYED, encode_done
from keyop.messages.replayed import encode_replayed
from keyop.names import PEER_PREFIXES, dead_letter_channel, replay_channel
from keyop.protocol import entry
from keyop.storage.segments import MAX_LINE_BYTES

CURSOR_ID = "dead-letter-command"
"""Under this id the cursor is held."""

_BATCH_BYTES = 64 * 1024
_BATCH_LETTERS = 100

OnProgress = Callable[[int], None]
"""Called with the number of letters that are done."""


class Failure(NamedTuple):
    """A letter that stays open, and why."""

    letter: DeadLetter
    why: str


class Outcome(NamedTuple):
    """What came of it."""

    done: int
    failures: list[Failure]


class CannotReplay(Exception):
    """Nothing can be put back because of this letter; the text says why."""


class DeadLetterOffice:
    """Works on the dead letters of one channel. Use it in a ``with`` block."""

    def __init__(self, settings: Settings, channel: str) -> None:
        """Attach. Raises `SubscriberBusy` while another one works here, and what `Attachment` raises."""
        self._channel = channel
        self._letters_channel = dead_letter_channel(channel)
        self._replays_channel = replay_channel(channel)
        self._origin = settings.name or socket.gethostname()
        self._attachment = Attachment(settings)
        self._directory = self._attachment.directory
        self._held = HeldCursor(self._attachment, self._letters_channel, CURSOR_ID)
        self._ready: dict[str, str] = {}
        self._entries = b""
        self._waiting = 0
        self._done = 0
        try:
            self._held.open(0)
        except BaseException as error:
            self._attachment.close()
            if isinstance(error, SubscriberBusy):
                raise SubscriberBusy(
                    f"another `keyop dead-letter` works on channel {channel!r}: wait until it is done ({error})"
                ) from error
            raise

    def replay(self, selection: Selection, progress: OnProgress = lambda _done: None) -> Outcome:
        """Put the originals back, each for the subscriber that failed. Raises `OSError`, `KeyopError`."""

        def entries(letter: DeadLetter) -> bytes:
            line = self._replayed(letter, selection.subscriber)
            return self._append(self._replays_channel, line) + self._mark(letter, REPLAYED)

        return self._work(selection, entries, progress)

    def discard(self, selection: Selection, progress: OnProgress = lambda _done: None) -> Outcome:
        """Mark letters as seen to. Raises `OSError`, `KeyopError`."""
        return self._work(selection, lambda letter: self._mark(letter, DISCARDED), progress)

    def _work(self, selection: Selection, entries: Callable[[DeadLetter], bytes], progress: OnProgress) -> Outcome:
        failures = []
        self._done = 0
        for letter in DeadLetters(self._directory, self._channel).select(selection._replace(done=False)):
            try:
                self._entries += entries(letter)
            except (CannotReplay, OriginalLost, PayloadError) as error:
                failures.append(Failure(letter, str(error)))
                continue
            self._waiting += 1
            if self._waiting >= _BATCH_LETTERS or len(self._entries) >= _BATCH_BYTES:
                self._commit()
                progress(self._done)
        self._commit()
        return Outcome(self._done, failures)

    def _commit(self) -> None:
        if self._waiting:
            self._attachment.transact(transaction(self._entries, entry.SYNC), self._channel)
            self._done += self._waiting
        self._entries, self._waiting = b"", 0

    # ---- one letter

    def _append(self, channel: str, line: bytes) -> bytes:
        return entry.encode(entry.APPEND, channel.encode(), data=line)

    def _mark(self, letter: DeadLetter, action: str) -> bytes:
        return self._append(self._letters_channel, encode_done(self._channel, letter.id, action, self._origin))

    def _replayed(self, letter: DeadLetter, wanted: str | None) -> bytes:
        subscriber = letter.subscriber or wanted or self._only_subscriber()
        if letter.from_host is not None:
            raise CannotReplay(f"it came from {letter.from_host}: put the message back there")
        why = self._ready.get(subscriber)
        if why is None:
            why = self._ready[subscriber] = self._prepare(subscriber)
        if why:
            raise CannotReplay(why)
        line = encode_replayed(original_of(self._directory, letter), subscriber, letter.id)
        if len(line) > MAX_LINE_BYTES:
            raise CannotReplay(f"the message is too long to be put back: {len(line)} bytes, {MAX_LINE_BYTES} are read")
        return line

    def _only_subscriber(self) -> str:
        ids = [id for id in subscriber_ids(self._directory, self._channel) if not id.startswith(PEER_PREFIXES)]
        if len(ids) != 1:
            known = f"the channel has {', '.join(ids)}" if ids else "the channel has none"
            raise CannotReplay(f"it names no subscriber, and {known}: say for whom, with --subscriber")
        return ids[0]

    def _prepare(self, subscriber: str) -> str:
        """Make the subscriber's cursor on the replay channel, if it has none, before anything is appended for it.

        Why it cannot be, or nothing.
        """
        if not self._directory.offset_file(self._channel, subscriber).exists():
            return (
                f"channel {self._channel!r} has no subscriber {subscriber!r} (any more): start it once, or put the "
                "original into a channel of its own"
            )
        if self._directory.offset_file(self._replays_channel, subscriber).exists():
            return ""
        # What was committed before this is committed: nobody else appends there while this cursor is held.
        end = self._attachment.channel_end(self._replays_channel)
        item = entry.encode(entry.SET, self._replays_channel.encode(), subscriber.encode(), value=end)
        try:
            self._attachment.transact(transaction(item), self._replays_channel)
        except SubscriberBusy:
            pass  # it is there: its subscriber was quicker
        return ""

    # ---- the end

    def close(self) -> None:
        """Give the cursor up, and detach."""
        try:
            self._held.close(forget=True)
        finally:
            self._attachment.close()

    def __enter__(self) -> DeadLetterOffice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
