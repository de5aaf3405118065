"""The envelope of a message that a subscriber gave up on, and the mark that says that somebody has seen to it."""

from __future__ import annotations

from collections.abc import Iterator
from time import time_ns

from keyop.messages.envelope import BadLine, EnvelopeEncoder, decode_line, decode_line_raw, readable_text
from keyop.messages.json_text import NotAnObject, quote, scan_object
from keyop.messages.timestamps import format_ns
from keyop.names import dead_letter_channel

DEAD_LETTER_TYPE = "com.keyop.messenger.DeadLetterPayload"
DONE_TYPE = "com.keyop.messenger.DeadLetterDone"
REPLAYED, DISCARDED = "replayed", "discarded"
_MAY_BE_DONE = DONE_TYPE.encode()
LAST_ERROR_MAX_BYTES = 16 * 1024

# Of an error, where the line is to fit into a limit that leaves no room for all of it.
_SHORT_ERROR_BYTES = 256


def encode_dead_letter(
    channel: str,
    line: bytes,
    offset: int,
    *,
    retries: int,
    last_error: str,
    subscriber: str,
    max_message_bytes: int,
    stands_in: str = "",
) -> tuple[str, bytes]:
    """Make the dead letter of one message: (its own id, the line with its newline).

    `line` is the record as it stands in `channel` (or in `stands_in`) at the global `offset`; of a damaged one that
    ends in a whole envelope that envelope is the original. `last_error` is cut at 16 KiB. If the dead letter were over
    `max_message_bytes` with its newline, the original goes without its payload, and if need be altogether;
    `original_offset` then says where it is, and `original_channel` in which channel if that is `stands_in`.
    """
    found = decode_line_raw(line)
    if isinstance(found, BadLine):
        envelope, line = found.envelope, line[found.start :]
    else:
        envelope = found
    if envelope is None:
        line = b"null"
    encoder = EnvelopeEncoder("" if envelope is None else envelope.origin)
    failed_at = format_ns(time_ns())
    message_id, letter = "", b""
    for original, is_whole, error_max_bytes in _smaller_and_smaller(line):
        payload = b'{"original":%b,"retries":%d,"last_error":%b,"failed_at":"%b","subscriber":%b' % (
            original,
            retries,
            quote(_cut(last_error, error_max_bytes)),
            failed_at.encode(),
            quote(subscriber, "subscriber id"),
        )
        if not is_whole:
            payload += b',"original_offset":%d' % offset
            payload += b',"original_channel":%b' % quote(stands_in) if stands_in not in ("", channel) else b""
        payload += b"}"
        message_id, letter = encoder.encode(dead_letter_channel(channel), payload, DEAD_LETTER_TYPE)
        if len(letter) <= max_message_bytes:
            break
    return message_id, letter


def encode_done(channel: str, letter_id: str, action: str, origin: str) -> bytes:
    """The mark, with its newline, that a dead letter of ``channel`` was `REPLAYED` or `DISCARDED`."""
    payload = b'{"dead_letter":%b,"action":%b}' % (quote(letter_id), quote(action))
    return EnvelopeEncoder(origin).encode(dead_letter_channel(channel), payload, DONE_TYPE)[1]


def is_done_mark(line: bytes) -> bool:
    """Whether a line of a dead-letter channel is such a mark: nothing for a handler of dead letters."""
    if _MAY_BE_DONE not in line:
        return False
    found = decode_line_raw(line)
    return not isinstance(found, BadLine) and found.payload_type == DONE_TYPE


def read_done_mark(line: bytes) -> tuple[str, str] | None:
    """The id of the dead letter that a mark is about, and the action; None for any other line."""
    found = decode_line(line) if is_done_mark(line) else None
    payload = None if found is None or isinstance(found, BadLine) else found.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("dead_letter"), str):
        return None
    return payload["dead_letter"], str(payload.get("action", ""))


def _smaller_and_smaller(line: bytes) -> Iterator[tuple[bytes, bool, int]]:
    """Ways to spell it: the original, whether it is whole, and how much of the error there is room for."""
    # Bytes that are not UTF-8 may stand in a payload that came through Go; a new line of ours has none.
    text = readable_text(line)
    yield text.encode(), True, LAST_ERROR_MAX_BYTES
    yield _without_payload(text), False, LAST_ERROR_MAX_BYTES
    yield b"null", False, LAST_ERROR_MAX_BYTES
    yield b"null", False, _SHORT_ERROR_BYTES


def _without_payload(text: str) -> bytes:
    try:
        members = scan_object(text)
    except NotAnObject:
        return b"null"
    kept = [b"%b:%b" % (quote(key), value.encode()) for key, _, value in members if key.casefold() != "payload"]
    return b"{%b}" % b",".join(kept)


def _cut(text: str, max_bytes: int) -> str:
    # What was cut in the middle of a character is no character any more. Lone surrogates become question marks.
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
