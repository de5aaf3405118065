"""A message that is put back for one subscriber: the original line, with whom it is for and why behind its own keys.

It stands on ``{channel}.replay``. Its ``channel`` is still the one that it was published to, so that a handler sees the
message as it was.
"""

from __future__ import annotations

from keyop.errors import PayloadError
from keyop.messages.envelope import BadLine, decode_line_raw, readable_text
from keyop.messages.json_text import NotAnObject, quote, scan_object

FOR = "replay_for"
LETTER = "replay"
_MAY_BE_REPLAYED = b'"replay_for"'


def encode_replayed(original: str, subscriber: str, letter_id: str) -> bytes:
    """The line, with its newline, that puts a message back for a subscriber, because of a dead letter.

    ``original`` is the envelope's text. A message that was replayed before loses what that added to it. Raises
    `PayloadError` for what no subscriber could read.
    """
    try:
        members = scan_object(original)
    except NotAnObject as error:
        raise PayloadError(f"not an envelope: {error}") from error
    kept = [b"%b:%b" % (quote(key), text.encode()) for key, _, text in members if key not in (FOR, LETTER)]
    kept.append(b'"%b":%b' % (FOR.encode(), quote(subscriber)))
    kept.append(b'"%b":%b' % (LETTER.encode(), quote(letter_id)))
    line = b"{%b}" % b",".join(kept).replace(b"\n", b" ")
    found = decode_line_raw(line)
    if isinstance(found, BadLine):
        raise PayloadError(f"not an envelope: {found.reason}")
    return line + b"\n"


def addressee(line: bytes) -> str | None:
    """The subscriber that a line of a replay channel is for; None where it names none, or cannot be read."""
    if _MAY_BE_REPLAYED not in line:
        return None
    try:
        members = scan_object(readable_text(line))
    except NotAnObject:
        return None
    values = [value for key, value, _ in members if key == FOR]
    return values[-1] if values and isinstance(values[-1], str) else None
