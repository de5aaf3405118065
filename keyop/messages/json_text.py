"""JSON as text: written by msgspec where it is installed, by the standard library where it is not (32-bit ARM)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from keyop.errors import PayloadError
from keyop.messages.bytes_and_sets import BYTES, SETS, refuse_bytes_and_sets

try:
    import msgspec
except ImportError:
    HAVE_MSGSPEC = False
else:
    HAVE_MSGSPEC = True


def encode_payload(payload: Any) -> bytes:
    """Encode `payload` as one line of compact JSON in UTF-8.

    Beside what JSON has, these are written in the way their readers expect: dataclasses, attrs classes, msgspec structs
    and pydantic models (by alias) as objects, tuples as arrays, datetimes, dates and times in ISO 8601, UUID and
    Decimal as strings, enums as their value. They come back as what JSON has: texts, numbers, lists, dicts. Keys of a
    dict are strings; numbers among them become strings, and come back as such. Of two keys that become one string both
    are written, and readers take the last.

    Raises PayloadError: bytes and sets, which no reader would get back as such (named by their path), an object of
    another type (named), NaN or an infinity (named by its path), a lone surrogate,
    something that contains itself or is nested too deep.
    """
    try:
        text = _encode(payload)
        refuse_bytes_and_sets(payload)
        # msgspec writes NaN and the infinities as null.
        if b"null" in text:
            _refuse_not_finite(payload)
    except RecursionError as error:
        raise PayloadError("payload is nested too deep, or contains itself") from error
    except UnicodeEncodeError as error:
        raise PayloadError(f"payload has a lone surrogate in a string: {error}") from error
    except PayloadError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise PayloadError(f"payload cannot be written as JSON: {error}") from error
    return text


def decode_json(text: bytes) -> Any:
    """Parse JSON. Raises `ValueError`."""
    return _decode(text)


def quote(text: str, what: str = "text") -> bytes:
    """Spell `text` as a JSON string. Raises PayloadError, naming it `what`, if it is no string or not Unicode."""
    if not isinstance(text, str):
        raise PayloadError(f"{what} is a {type(text).__name__}, not a string")
    try:
        return _encode(text)
    except UnicodeEncodeError as error:
        raise PayloadError(f"{what} has a lone surrogate: {error}") from error


def _plain(value: Any) -> Any:
    """Turn what neither encoder knows by itself into something that it knows."""
    kind = type(value)
    serializer = getattr(kind, "__pydantic_serializer__", None)
    if serializer is not None:
        # round_trip: what is written has to validate when it is read, so no computed fields.
        return serializer.to_python(value, mode="json", by_alias=True, round_trip=True)
    if isinstance(value, (float, int)):
        # msgspec does not know subclasses; numpy.float64 is one.
        return float(value) if isinstance(value, float) else int(value)
    if not HAVE_MSGSPEC:
        return _plain_without_msgspec(value)
    raise _not_json(kind)


def _plain_without_msgspec(value: Any) -> Any:
    # Here, because with msgspec nobody needs all these modules.
    from dataclasses import fields, is_dataclass
    from datetime import date, datetime, time
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

    kind = type(value)
    if is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in fields(kind)}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (*BYTES, *SETS)):
        return None  # refused behind this, with its path
    raise _not_json(kind)


def _not_json(kind: type) -> PayloadError:
    return PayloadError(f"payload holds a {kind.__module__}.{kind.__qualname__}, which JSON cannot hold there")


if HAVE_MSGSPEC:
    _encode = msgspec.json.Encoder(enc_hook=_plain).encode
    _decode = msgspec.json.Decoder().decode

    def _builtins(value: Any) -> Any:
        return msgspec.to_builtins(value, enc_hook=_plain_for_looking)

    def _plain_for_looking(value: Any) -> Any:
        # JSON that the caller wrote himself can hold no NaN that we would have turned into null.
        return None if isinstance(value, msgspec.Raw) else _plain(value)

else:
    _decode = json.loads  # type: ignore[assignment]
    _encode_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode

    def _encode(value: Any, /) -> bytes:
        return _encode_text(value).encode()

    def _builtins(value: Any) -> Any:
        return None


def _refuse_not_finite(payload: Any) -> None:
    if not _is_finite(payload):
        path, number = next(found for found in _floats(_builtins(payload), "payload") if not math.isfinite(found[1]))
        raise PayloadError(f"{path} is {number}, which JSON cannot hold")


_NEVER_INFINITE = frozenset((str, int, bool, type(None)))


def _is_finite(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(item) in _NEVER_INFINITE or _is_finite(item) for item in value.values())
    if kind is list or kind is tuple:
        return all(type(item) in _NEVER_INFINITE or _is_finite(item) for item in value)
    return kind in _NEVER_INFINITE or _is_finite(_builtins(value))


def _floats(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _floats(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _floats(item, f"{path}[{place}]")


class NotAnObject(ValueError):
    """The text is not one JSON object."""


_BLANKS = frozenset(" \t\n\r")
_may_have_lone_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search


def _refuse_constant(name: str) -> Any:
    raise NotAnObject(f"{name} is not JSON")


_scan_value = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


class Member(NamedTuple):
    """One member of a JSON object, and where it stands."""

    key: str
    value: Any
    text: str
    """The value's own text."""
    start: int
    """Where the key begins, in characters."""
    value_start: int
    """Where the value begins."""
    value_end: int
    """Behind the value."""


def scan_object(text: str) -> list[tuple[str, Any, str]]:
    """The members of one JSON object in their order, repeated keys too: key, value, and the value's own text.

    A lone surrogate in a value becomes U+FFFD, as in Go. Raises NotAnObject for anything but exactly one object.
    """
    return [member[:3] for member in scan_members(text)]


def scan_members(text: str) -> list[Member]:
    """Like scan_object, with their places. Raises NotAnObject."""
    try:
        return _scan_members(text)
    except IndexError:
        raise NotAnObject("the object does not end") from None
    except RecursionError:
        raise NotAnObject("nested too deep") from None
    except NotAnObject:
        raise
    except ValueError as error:
        raise NotAnObject(str(error)) from None


def _scan_members(text: str) -> list[Member]:
    members: list[Member] = []
    place = _behind("{", text, 0)
    while text[place] != "}":
        if members:
            place = _behind(",", text, place)
        member = _scan_member(text, place)
        members.append(member)
        place = _skip_blanks(text, member.value_end)
    place = _behind("}", text, place)
    if place != len(text):
        raise NotAnObject(f"something follows the object at {place}")
    return members


def _scan_member(text: str, start: int) -> Member:
    if text[start] != '"':
        raise NotAnObject(f"a key expected at {start}")
    key, place = _scan_value(text, start)
    value_start = _behind(":", text, place)
    value, end = _scan_value(text, value_start)
    value_text = text[value_start:end]
    if _may_have_lone_surrogate(value_text):
        value = _without_lone_surrogates(value)
        value_text = _encode(value).decode()
    return Member(_without_lone_surrogates(key), value, value_text, start, value_start, end)


def _behind(character: str, text: str, place: int) -> int:
    place = _skip_blanks(text, place)
    if text[place] != character:
        raise NotAnObject(f"{character} expected at {place}")
    return _skip_blanks(text, place + 1)


def _skip_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in _BLANKS:
        place += 1
    return place


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value
