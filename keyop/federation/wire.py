"""The texts and bytes of wire protocol "1": handshakes, acknowledgements, frames of records.

A frame is a binary message: any number of records, each ``[u32 big-endian length][envelope line without newline]``.
All else is text messages, compact JSON with the keys in the Go program's order. Nothing here remembers anything: what
may come when is the business of `keyop.federation.session`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple

from keyop.errors import NameRuleError
from keyop.messages.json_text import quote
from keyop.names import REPLAY_SUFFIX, check_channel

VERSION = "1"

PIPELINED = "pipelined"
"""Feature: several batches may be in flight; acknowledgements come in the order of the batches."""

ANY_VERSION = "any-version"
"""Feature: envelopes of versions other than 1 may be sent, and are passed on as they are."""

FEATURES = (PIPELINED, ANY_VERSION)
"""What this side can do beyond the protocol. It is used only where both sides name it, so never with a Go peer."""

MAX_REASON_BYTES = 123
"""What WebSocket leaves for the reason of a close, in UTF-8."""

_LENGTH = Struct(">I")
LENGTH_BYTES = _LENGTH.size
_NAME_SHOWN = 64
_REFUSED_NAMES_KEPT = 8


class CloseCode(enum.IntEnum):
    """Why a connection ends. 4000 and up are the protocol's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    ABNORMAL = 1006
    """Never sent: the connection is gone without a close. With a Go peer that is every normal end."""
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    """A batch could not be committed; its sender will send it again."""
    TRY_LATER = 1013
    NOT_ALLOWED = 4403
    REPLACED = 4409


class WireError(ValueError):
    """What came is not of the protocol. Its text becomes the reason of the close; `code` is the close's code."""

    def __init__(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class Hello(NamedTuple):
    """The handshake of one side."""

    instance_name: str
    """What the other side calls itself. Informative only: who it is, its certificate says."""

    subscribe: tuple[str, ...] = ()
    """Of a client: the channels it asks for, each once, all of them names that may be part of a path."""

    ephemeral: bool = False
    """Of a client: whether it has no data directory, and wants live messages only."""

    features: frozenset[str] = frozenset()
    """What both sides can do beyond the protocol."""

    refused: tuple[str, ...] = ()
    """Of a client: the first few names that it asked for and that are none, as `repr` shows them. For the audit."""

    refused_count: int = 0
    """Of a client: how many there were."""


def client_hello(instance_name: str, subscribe: Sequence[str], ephemeral: bool, features: Sequence[str]) -> str:
    """The text of a client's handshake. Raises `keyop.PayloadError` if a name is not Unicode."""
    members = _hello_members(instance_name, "client")
    if subscribe:
        members.append(b'"subscribe":' + _texts(subscribe))
    if ephemeral:
        members.append(b'"ephemeral":true')
    return _hello_text(members, features)


def hub_hello(instance_name: str, features: Sequence[str]) -> str:
    """The text of a hub's handshake. Raises `keyop.PayloadError` if a name is not Unicode."""
    return _hello_text(_hello_members(instance_name, "hub"), features)


def _hello_members(instance_name: str, role: str) -> list[bytes]:
    return [b'"instance_name":' + quote(instance_name, "instance_name"), b'"role":%b' % quote(role), b'"version":"1"']


def _hello_text(members: list[bytes], features: Sequence[str]) -> str:
    if features:
        members.append(b'"features":' + _texts(features))
    return (b"{%b}" % b",".join(members)).decode()


def _texts(texts: Sequence[str]) -> bytes:
    return b"[%b]" % b",".join(quote(text) for text in texts)


def read_hello(text: str, role: str, features: Sequence[str], max_names: int) -> Hello:
    """Read the handshake of the side that plays `role`, "client" or "hub". Unknown keys are passed over.

    Raises WireError. A name in `subscribe` that is no channel's is left out and counted, since the Go program's rule
    allows more than ours.
    """
    members = _object(text, "handshake")
    if members.get("version") != VERSION:
        raise WireError(f'handshake: version is {_shown(members.get("version"))}, not "1"')
    if members.get("role") != role:
        raise WireError(f'handshake: role is {_shown(members.get("role"))}, not "{role}"')
    name = members.get("instance_name")
    subscribe, refused = _subscribe_list(members.get("subscribe"), max_names) if role == "client" else ((), [])
    return Hello(
        _clean(name)[:_NAME_SHOWN] if isinstance(name, str) else "",
        subscribe,
        members.get("ephemeral") is True,
        _common(members.get("features"), features),
        tuple(map(_shown, refused[:_REFUSED_NAMES_KEPT])),
        len(refused),
    )


def _subscribe_list(names: Any, max_names: int) -> tuple[tuple[str, ...], list[Any]]:
    if names is None:
        return (), []
    if not isinstance(names, list):
        raise WireError(f"handshake: subscribe is {_shown(names)}, not a list")
    if len(names) > max_names:
        raise WireError(f"handshake: subscribe names {len(names):,} channels, {max_names:,} are allowed")
    # A name that came twice would have its messages sent twice.
    allowed: dict[str, None] = {}
    refused = []
    for name in names:
        if _is_federated(name):
            allowed[name] = None
        else:
            refused.append(name)
    return tuple(allowed), refused


def _is_federated(name: Any) -> bool:
    # Not the check's own look at the type: it shows what it refuses, and a list may be nested too deep to be shown.
    if not isinstance(name, str):
        return False
    try:
        return not check_channel(name).endswith(REPLAY_SUFFIX)
    except NameRuleError:
        return False


def _common(theirs: Any, ours: Sequence[str]) -> frozenset[str]:
    if not isinstance(theirs, list):
        return frozenset()
    return frozenset(feature for feature in ours if feature in theirs)


def ack_text(last_id: str) -> str:
    """The text that acknowledges a frame whose last record has this id; "" where there is none that can be read."""
    return (b'{"last_id":%b}' % quote(last_id)).decode()


def read_ack(text: str) -> str:
    """The id in an acknowledgement, "" where it has none. Raises WireError for another text."""
    last_id = _object(text, "acknowledgement").get("last_id")
    if last_id is None:
        return ""
    if not isinstance(last_id, str):
        raise WireError(f"acknowledgement: last_id is {_shown(last_id)}, not a string")
    return _clean(last_id)


def frame_of(lines: Sequence[bytes]) -> bytes:
    """One frame that holds these lines (without their newlines)."""
    pack = _LENGTH.pack
    parts = []
    for line in lines:
        parts.append(pack(len(line)))
        parts.append(line)
    return b"".join(parts)


def spans(frame: bytes) -> Iterator[tuple[int, int]]:
    """Where each record of `frame` begins and ends. Raises WireError where the frame ends in the middle of one."""
    unpack_from = _LENGTH.unpack_from
    place, size = 0, len(frame)
    while place < size:
        start = place + LENGTH_BYTES
        if start > size:
            raise WireError(f"truncated frame: {size - place} bytes at {place:,} are too few for a length")
        (length,) = unpack_from(frame, place)
        place = start + length
        if place > size:
            raise WireError(f"truncated frame: a record of {length:,} bytes at {start:,}, the frame has {size:,}")
        yield start, place


def cut_reason(reason: str) -> str:
    """`reason` as one line, short enough for a close."""
    text = _clean(reason[:MAX_REASON_BYTES])
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        # Not msgspec: it takes no half characters, which the Go program does.
        members = json.loads(text)
    except RecursionError:
        raise WireError(f"{what}: nested too deep") from None
    except ValueError:
        raise WireError(f"{what}: not JSON: {_shown(text)}") from None
    if not isinstance(members, dict):
        raise WireError(f"{what}: not an object: {_shown(members)}")
    return members


def _shown(value: Any) -> str:
    # repr of what is nested deep, or long, would cost more than it says.
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value):,}"
    if isinstance(value, str):
        value = value[:_NAME_SHOWN]
    return f"{value!r:.{_NAME_SHOWN}}"


def _clean(text: str) -> str:
    # Escapes can spell half a character, which no encoder takes.
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
