"""The envelope: one message as one line of JSON, in the key order and with the habits of the Go program."""

from __future__ import annotations

import codecs
import enum
import json
from time import time_ns
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from keyop.messages.ids import new_id
from keyop.messages.json_text import HAVE_MSGSPEC, NotAnObject, encode_payload, quote, scan_object
from keyop.messages.timestamps import NS_PER_SECOND, parse_ns, second_prefix

__all__ = [
    "BadLine",
    "Envelope",
    "EnvelopeEncoder",
    "Fault",
    "decode_line",
    "decode_line_raw",
    "encode_payload",
    "line_ts_ns",
]

ENVELOPE_VERSION = 1

_RECOVERY_START = b'{"v":1,"id":"'
# A line can hold that text very often, and looking at each of them costs a parse.
_RECOVERY_LOOKS = 8
_HEADS_KEPT = 16_384


class EnvelopeEncoder:
    """Makes the lines of one publisher. Any number of threads may share it."""

    def __init__(self, origin: str) -> None:
        """`origin` goes into every envelope. Raises PayloadError if it is not Unicode."""
        self.origin = origin
        self._origin = quote(origin, "origin")
        self._heads: dict[tuple[str, str], bytes] = {}
        # The start of a second in ns, and its text. One tuple, so that threads see a matching pair.
        self._second: tuple[int, bytes] = (0, second_prefix(0).encode())

    def encode(
        self, channel: str, payload: bytes, payload_type: str = "", correlation_id: str = "", service_name: str = ""
    ) -> tuple[str, bytes]:
        """Give the new message its id and time: (id, line). The line's one newline is its last byte.

        `payload` is JSON as encode_payload gives it. Names are not checked here. Raises PayloadError if a text is no
        string or not Unicode.
        """
        try:
            head = self._heads[channel, payload_type]
        except KeyError:
            head = self._make_head(channel, payload_type)
        if correlation_id or service_name:
            head += _optional_members(correlation_id, service_name)
        if b"\n" in payload:
            # Valid JSON has newlines only between its tokens, where any blank will do.
            payload = payload.replace(b"\n", b" ")
        now_ns = time_ns()
        second_ns, prefix = self._second
        rest_ns = now_ns - second_ns
        if not 0 <= rest_ns < NS_PER_SECOND:
            prefix, rest_ns = self._begin_second(now_ns)
        message_id = new_id()
        return message_id, b'{"v":1,"id":"%b","ts":"%b%09dZ","channel":%b,"payload":%b}\n' % (
            message_id.encode(),
            prefix,
            rest_ns,
            head,
            payload,
        )

    def _make_head(self, channel: str, payload_type: str) -> bytes:
        head = b'%b,"origin":%b,"payload_type":%b' % (
            quote(channel, "channel"),
            self._origin,
            quote(payload_type, "payload_type"),
        )
        if len(self._heads) >= _HEADS_KEPT:
            self._heads.clear()
        self._heads[channel, payload_type] = head
        return head

    def _begin_second(self, now_ns: int) -> tuple[bytes, int]:
        second, rest_ns = divmod(now_ns, NS_PER_SECOND)
        prefix = second_prefix(second).encode()
        self._second = (now_ns - rest_ns, prefix)
        return prefix, rest_ns


def _optional_members(correlation_id: str, service_name: str) -> bytes:
    members = b""
    if correlation_id:
        members += b',"correlation_id":' + quote(correlation_id, "correlation_id")
    if service_name:
        members += b',"service_name":' + quote(service_name, "service_name")
    return members


if HAVE_MSGSPEC and not TYPE_CHECKING:
    import msgspec

    # Unknown keys are not forbidden, they go the slow way: one of them may be a known key in another case, and Go
    # would take it for that.
    class Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
        v: Literal[1]
        id: str = ""
        ts: str = ""
        channel: str = ""
        origin: str = ""
        payload_type: str = ""
        correlation_id: str = ""
        service_name: str = ""
        route: tuple[str, ...] = ()
        payload: Any = None

    class _RawEnvelope(Envelope, forbid_unknown_fields=True, gc=False):
        payload: msgspec.Raw = msgspec.Raw(b"null")

    _decode_fast = msgspec.json.Decoder(Envelope).decode
    _decode_raw_fast = msgspec.json.Decoder(_RawEnvelope).decode
else:
    from dataclasses import dataclass

    @dataclass(slots=True)
    class Envelope:
        """What one line holds; a missing key is empty. With msgspec it is a Struct of the same attributes."""

        v: Literal[1]
        id: str = ""
        ts: str = ""
        """As it stands in the line, readable or not: see keyop.messages.timestamps.parse_ns."""
        channel: str = ""
        origin: str = ""
        payload_type: str = ""
        correlation_id: str = ""
        service_name: str = ""
        route: tuple[str, ...] = ()
        payload: Any = None
        """The JSON value; of decode_line_raw something whose `bytes()` are its text."""

    def _decode_fast(line: bytes) -> Envelope:
        """The straight way without msgspec: raises for anything that the slow way has to look at."""
        if b"\\u" in line or b"NaN" in line or b"Infinity" in line:
            raise NotAnObject("may hold what json takes and msgspec does not")
        envelope = Envelope(**json.loads(line.decode()))
        texts = [envelope.id, envelope.ts, envelope.channel, envelope.origin, envelope.payload_type]
        texts += [envelope.correlation_id, envelope.service_name, *envelope.route]
        is_usual = type(envelope.v) is int and envelope.v == 1 and isinstance(envelope.route, (list, tuple))
        if not is_usual or set(map(type, texts)) != {str}:
            raise NotAnObject("not of the usual types")
        envelope.route = tuple(envelope.route)
        return envelope

    def _decode_raw_fast(line: bytes) -> Envelope:
        raise NotAnObject("json tells no value's own text")


class Fault(enum.Enum):
    """Why a line is not a good one."""

    DAMAGED = "damaged"
    RECOVERED = "recovered"
    OTHER_VERSION = "other version"


class BadLine(NamedTuple):
    """A line that is not exactly one envelope of version 1."""

    fault: Fault
    reason: str
    envelope: Envelope | None = None
    """Of a RECOVERED line: the whole envelope at its end. Deliver it, and count the line as damaged."""
    start: int = 0
    """Of a RECOVERED line: where in it that envelope begins, in bytes."""


def decode_line(line: bytes) -> Envelope | BadLine:
    """Read one line (without its newline); never raises. The payload is a JSON value.

    Honours Go's habits: keys in any case, the last of several counts, null is as good as missing, unknown keys are
    passed over. A key of the wrong type makes the line damaged; `v` has to be the integer 1. Bytes that are not
    UTF-8 and lone surrogates become U+FFFD.
    """
    try:
        return _decode_fast(line)
    except Exception:  # whatever the fast way stumbles over, the slow way decides
        return _decode_slowly(line, raw=False)


def decode_line_raw(line: bytes) -> Envelope | BadLine:
    """Like decode_line, but `bytes(envelope.payload)` is the payload's JSON text, in UTF-8, for another decoder."""
    try:
        # msgspec takes raw text as it is, UTF-8 or not.
        if not line.isascii():
            line.decode()
        return _decode_raw_fast(line)
    except Exception:
        return _decode_slowly(line, raw=True)


def line_ts_ns(line: bytes) -> int | None:
    """The time of the envelope in `line` in nanoseconds since 1970; None if the line or its time cannot be read."""
    found = decode_line_raw(line)
    envelope = found.envelope if isinstance(found, BadLine) else found
    return None if envelope is None else parse_ns(envelope.ts)


def _decode_slowly(line: bytes, raw: bool) -> Envelope | BadLine:
    found = _read(line, raw)
    if isinstance(found, BadLine) and found.fault is Fault.DAMAGED:
        return _recover(line, raw, found.reason) or found
    return found


def _recover(line: bytes, raw: bool, reason: str) -> BadLine | None:
    """Find the whole envelope that Go up to 1.12 glued to a torn one."""
    end = len(line)
    for _ in range(_RECOVERY_LOOKS):
        # The last one first, but that may be an envelope inside of a dead letter: then an earlier one fits.
        end = line.rfind(_RECOVERY_START, 1, end)
        if end < 0:
            return None
        found = _read(line[end:], raw)
        if isinstance(found, Envelope):
            return BadLine(Fault.RECOVERED, reason, found, end)
    return None


def _one_per_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1


codecs.register_error("keyop.one-per-byte", _one_per_byte)


def readable_text(line: bytes) -> str:
    """`line` as text; each byte that is not UTF-8 becomes one U+FFFD, as in Go."""
    return line.decode("utf-8", "keyop.one-per-byte")


_STRING_KEYS = frozenset(("id", "ts", "channel", "origin", "payload_type", "correlation_id", "service_name"))


def _read(line: bytes, raw: bool) -> Envelope | BadLine:
    try:
        members = scan_object(readable_text(line))
    except NotAnObject as error:
        return BadLine(Fault.DAMAGED, f"not a JSON object: {error}")
    fields: dict[str, Any] = {}
    if raw:
        fields["payload"] = b"null"
    version: Any = None
    wrong = ""
    for key, value, text in members:
        name = key.casefold()
        if name == "payload":
            fields[name] = text.encode() if raw else value
        elif value is None:
            continue
        elif name == "v":
            version = value
        elif name == "route":
            route = _route(value)
            fields[name] = route
            wrong = wrong if route is not None else name
        elif name in _STRING_KEYS:
            fields[name] = value
            wrong = wrong if isinstance(value, str) else name
    return _judge(version, wrong, fields)


def _route(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
        return None
    return tuple(item or "" for item in value)


def _judge(version: Any, wrong: str, fields: dict[str, Any]) -> Envelope | BadLine:
    if version is not None and type(version) is not int:
        return BadLine(Fault.DAMAGED, f"v is {version!r:.40}, not an integer")
    if version != ENVELOPE_VERSION:
        return BadLine(Fault.OTHER_VERSION, "v is missing" if version is None else f"v is {version}")
    if wrong:
        return BadLine(Fault.DAMAGED, f"the value of {wrong} has the wrong type")
    return Envelope(v=1, **fields)
