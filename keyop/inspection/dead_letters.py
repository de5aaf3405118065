"""The dead letters of a channel, and which of them somebody has seen to.

A dead letter is **done** when a mark in the same channel names it: it was put back, or discarded. Reads files only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from keyop.messages.dead_letter import DEAD_LETTER_TYPE, read_done_mark
from keyop.messages.envelope import BadLine, Envelope, decode_line_raw
from keyop.messages.json_text import NotAnObject, scan_object
from keyop.messages.replayed import LETTER
from keyop.messages.timestamps import parse_ns
from keyop.names import dead_letter_channel
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import align_offset, list_segments


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One of them. What its record does not say is None."""

    id: str
    offset: int
    """Where its record begins in the dead-letter channel, in bytes."""
    failed_at: str
    subscriber: str | None
    """Who failed; None of a letter of the Go program, which does not say."""
    retries: int | None
    error: str
    message_id: str | None
    """The original's."""
    message_ts: str | None
    payload_type: str | None
    replay_of: str | None
    """The dead letter because of which the original had been put back before it failed again."""
    from_host: str | None
    """The host that it was made on, where that is another one."""
    state: str
    """``open``, or what its mark says: ``replayed``, ``discarded``."""
    original: str | None
    """The envelope as JSON, perhaps without its payload; None if there is none in the record."""
    stands_at: tuple[str, int] | None
    """Channel and offset of the original, where the record has no room for all of it."""

    @property
    def failed_ns(self) -> int:
        """When it failed, in nanoseconds since 1970; 0 if that cannot be read."""
        return parse_ns(self.failed_at) or 0


class Selection(NamedTuple):
    """Which dead letters: every condition that is given has to hold."""

    ids: frozenset[str] = frozenset()
    """Of the letters, or of the messages."""
    subscriber: str | None = None
    """Letters that name no subscriber are taken, too."""
    since: datetime | None = None
    """Failed then or later."""
    error: re.Pattern[str] | None = None
    """Found somewhere in the error's text."""
    done: bool = False
    """Also those that somebody has seen to."""

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of them."""
        return (
            (self.done or letter.state == "open")
            and (not self.ids or letter.id in self.ids or letter.message_id in self.ids)
            and (self.subscriber is None or letter.subscriber in (None, self.subscriber))
            and (self.since is None or letter.failed_ns >= self.since.astimezone(UTC).timestamp() * 1e9)
            and (self.error is None or self.error.search(letter.error) is not None)
        )


class DeadLetters:
    """Those of one channel, as they are when this is made: iterate as often as you like, in the order of the file."""

    def __init__(self, directory: DataDirectory, channel: str) -> None:
        """Reads all marks. Raises `OSError`."""
        self._channel = channel
        self._path = directory.channel(dead_letter_channel(channel))
        self._done: dict[str, str] = {}
        self.unreadable = 0
        """Records that are neither a letter nor a mark."""
        for _offset, line in _lines(self._path):
            mark = read_done_mark(line)
            if mark is not None:
                self._done.setdefault(*mark)

    def __iter__(self) -> Iterator[DeadLetter]:
        self.unreadable = 0
        for offset, line in _lines(self._path):
            if read_done_mark(line) is not None:
                continue
            letter = self._letter(line, offset)
            if letter is None:
                self.unreadable += 1
            else:
                yield letter

    def select(self, selection: Selection) -> Iterator[DeadLetter]:
        """Those that are wanted."""
        return (letter for letter in self if selection(letter))

    def _letter(self, line: bytes, offset: int) -> DeadLetter | None:
        found = decode_line_raw(line)
        envelope = found.envelope if isinstance(found, BadLine) else found
        if envelope is None or envelope.payload_type != DEAD_LETTER_TYPE:
            return None
        try:
            members = {key: (value, text) for key, value, text in scan_object(bytes(envelope.payload).decode())}
        except (NotAnObject, UnicodeDecodeError):
            return None
        return self._read(envelope, members, offset)

    def _read(self, envelope: Envelope, members: dict[str, tuple[Any, str]], offset: int) -> DeadLetter:
        values = {key: value for key, (value, _) in members.items()}
        original = values.get("original")
        parts = original if isinstance(original, dict) else {}
        stands_at = values.get("original_offset")
        return DeadLetter(
            id=envelope.id,
            offset=offset,
            failed_at=_text(values.get("failed_at")) or envelope.ts,
            subscriber=_text(values.get("subscriber")),
            retries=values["retries"] if isinstance(values.get("retries"), int) else None,
            error=_text(values.get("last_error")) or "",
            message_id=_text(parts.get("id")),
            message_ts=_text(parts.get("ts")),
            payload_type=_text(parts.get("payload_type")),
            replay_of=_text(parts.get(LETTER)),
            from_host=envelope.route[0] if envelope.route and envelope.route != (envelope.origin,) else None,
            state=self._done.get(envelope.id, "open"),
            original=members["original"][1] if parts else None,
            stands_at=(_text(values.get("original_channel")) or self._channel, stands_at)
            if isinstance(stands_at, int)
            else None,
        )


class OriginalLost(Exception):
    """The message that a dead letter is about cannot be had any more; the text says why."""


def original_of(directory: DataDirectory, letter: DeadLetter) -> str:
    """The original's whole envelope. Raises `OriginalLost` and `OSError`."""
    if letter.stands_at is None:
        if letter.original is None:
            raise OriginalLost("the message was damaged when it failed, and there is no original of it")
        return letter.original
    channel, offset = letter.stands_at
    path = directory.channel(channel)
    segments, _ = list_segments(path)
    if not segments or offset < segments[0].start:
        raise OriginalLost(
            f"the message was too long for its dead letter, and its segment (channel {channel}, offset {offset}) "
            "has been removed"
        )
    line = next(iter(_lines(path, offset)), (-1, b""))[1] if align_offset(path, offset) == (offset, None) else b""
    found = decode_line_raw(line)
    if isinstance(found, BadLine) or letter.message_id not in (None, found.id):
        raise OriginalLost(
            f"the message was too long for its dead letter, and at its place (channel {channel}, offset {offset}) "
            "it cannot be read any more"
        )
    return line.decode(errors="replace")


def _lines(path: Path, offset: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Every whole line with its offset, up to the end as it is when that is reached."""
    segments, _ = list_segments(path)
    if not segments:
        return
    reader = SegmentReader(path, segments[0].start if offset is None else offset)
    try:
        while (batch := reader.read_batch(relist=True)) is not None:
            at = batch.start
            for line in batch.lines:
                yield at, line
                at += len(line) + 1
    finally:
        reader.close()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
