"""The members of an envelope that is not of the usual form, and where they stand: the slow way."""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from keyop.messages.envelope import readable_text
from keyop.messages.json_text import HAVE_MSGSPEC, NotAnObject, scan_members

SHORT_BYTES = 65_536
"""Up to this length every object is read, whatever it looks like. It means to decode it whole, which of a line of 4 MiB
may take a second and 100 MiB."""

_MOST_MEMBERS_OF_LONG = 1_000


class Member(NamedTuple):
    """One member of an object. Places are in bytes."""

    name: str
    """Its key without regard to case, as the Go program reads it."""
    value: Any
    """In a long line only what a known key may have; WRONG in place of anything else."""
    start: int
    """Where the key begins."""
    value_start: int
    value_end: int


WRONG = object()
"""Stands for a value that is of no use."""

TEXTS = frozenset(("id", "ts", "channel", "origin", "payload_type", "correlation_id", "service_name"))
"""The keys whose values are texts."""


def members_of(line: bytes) -> list[Member]:
    """All members in their order. Raises NotAnObject for what is no object.

    That includes a long line in which one key has two values: so much freedom costs too much there.
    """
    if HAVE_MSGSPEC and len(line) > SHORT_BYTES:
        return _members_of_long(line)
    members = scan_members(readable_text(line))
    places = _in_bytes(line, [place for member in members for place in member[3:]])
    return [
        Member(member.key.casefold(), member.value, *places[3 * at : 3 * at + 3]) for at, member in enumerate(members)
    ]


def _in_bytes(line: bytes, places: list[int]) -> list[int]:
    """Places in characters, in rising order, as places in bytes."""
    if line.isascii():
        return places
    # One character for each byte that is not UTF-8, as in readable_text, but it turns back into that byte.
    text = line.decode("utf-8", "surrogateescape")
    begins = [0, *places]
    lengths = (len(text[a:b].encode("utf-8", "surrogateescape")) for a, b in pairwise(begins))
    return list(accumulate(lengths))


if HAVE_MSGSPEC:
    import msgspec

    _decode_values = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    _decode_text = msgspec.json.Decoder(str).decode
    _decode_names = msgspec.json.Decoder(list[str | None]).decode
    _decode_integer = msgspec.json.Decoder(int).decode

    _find_key = re.compile(rb'[{,][ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL).match
    _find_end = re.compile(rb"[ \t\r\n]*(?=[,}])").match


def _members_of_long(line: bytes) -> list[Member]:
    # Nothing but the texts of the values is made here; walking along them says where each stands.
    try:
        texts = _decode_values(line)
        start = line.index(b"{")
        members: list[Member] = []
        while key := _find_key(line, start):
            name = _decode_text(key[1])
            text = bytes(texts[name])
            end = key.end() + len(text)
            after = _find_end(line, end)
            if after is None or not line.startswith(text, key.end()):
                raise NotAnObject(f"{name[:40]!r} has two values in a line of {len(line):,} bytes")
            name = name.casefold()
            members.append(Member(name, _value(name, text), key.start(1), key.end(), end))
            if len(members) > _MOST_MEMBERS_OF_LONG:
                raise NotAnObject(f"more than {_MOST_MEMBERS_OF_LONG:,} members in a line of {len(line):,} bytes")
            start = after.end()
    except NotAnObject:
        raise
    except RecursionError:
        raise NotAnObject("nested too deep") from None
    except ValueError as error:
        raise NotAnObject(str(error)) from None
    return members


def _value(name: str, text: bytes) -> Any:
    if text == b"null":
        return None
    try:
        if name == "v":
            return _decode_integer(text)
        if name == "route":
            return _decode_names(text)
        return _decode_text(text) if name in TEXTS else WRONG
    except msgspec.ValidationError:
        return WRONG
