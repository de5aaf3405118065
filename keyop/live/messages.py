"""The last messages of a channel, as text to be shown; of dead letters their error."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from keyop.live.snapshot import View
from keyop.messages.dead_letter import DEAD_LETTER_TYPE
from keyop.messages.envelope import BadLine, decode_line_raw
from keyop.messages.json_text import decode_json
from keyop.names import is_dead_letter
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import SegmentReader
from keyop.storage.segments import align_offset, channel_end

_LOOK_BACK_BYTES = 1 << 20
_MOST_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class MessageView(View):
    """One record. Texts are cut at 4,000 characters."""

    offset: int
    id: str
    ts: str
    origin: str
    payload_type: str
    payload: str
    """JSON; of a damaged record what stands there."""
    error: str | None
    """Of a dead letter: the last error. Of a damaged record: what is wrong with it."""
    subscriber: str | None
    """Of a dead letter: who gave up."""
    retries: int | None


def last_messages(directory: DataDirectory, channel: str, count: int = 20) -> list[MessageView]:
    """The newest records, the newest first; fewer where they are not within the last MiB. Raises `OSError`."""
    path = directory.channel(channel)
    start = max(0, channel_end(path) - _LOOK_BACK_BYTES)
    reader = SegmentReader(path, align_offset(path, start)[0])
    newest: deque[tuple[int, bytes]] = deque(maxlen=count)
    try:
        while (batch := reader.read_batch(relist=True)) is not None:
            offset = batch.start
            for line in batch.lines:
                newest.append((offset, line))
                offset += len(line) + 1
    finally:
        reader.close()
    letters = is_dead_letter(channel)
    return [_view(offset, line, letters) for offset, line in reversed(newest)]


def _view(offset: int, line: bytes, is_letter: bool) -> MessageView:
    found = decode_line_raw(line)
    envelope = found.envelope if isinstance(found, BadLine) else found
    error = found.reason if isinstance(found, BadLine) else None
    if envelope is None:
        return MessageView(offset, "", "", "", "", _cut(line.decode(errors="replace")), error, None, None)
    payload = bytes(envelope.payload)
    subscriber, retries = None, None
    if is_letter and envelope.payload_type == DEAD_LETTER_TYPE:
        letter = _object(payload)
        error = str(letter.get("last_error", ""))
        subscriber = _text(letter.get("subscriber"))
        retries = letter["retries"] if isinstance(letter.get("retries"), int) else None
    return MessageView(
        offset=offset,
        id=envelope.id,
        ts=envelope.ts,
        origin=envelope.origin,
        payload_type=envelope.payload_type,
        payload=_cut(payload.decode(errors="replace")),
        error=None if error is None else _cut(error),
        subscriber=subscriber,
        retries=retries,
    )


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = decode_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
