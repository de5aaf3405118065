"""What a payload may not hold although an encoder writes it: nobody would get it back as what it was.

msgspec writes bytes as base64 and sets as arrays. A reader sees text, or a list, and its handler fails far away from
whoever published.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keyop.errors import PayloadError

BYTES = (bytes, bytearray, memoryview)
SETS = (set, frozenset)

_SCALARS = frozenset((str, int, float, bool, type(None)))
_are_scalars = _SCALARS.issuperset


def refuse_bytes_and_sets(payload: Any) -> None:
    """Raise PayloadError, with the path, for one of them in dicts, lists, tuples, dataclasses, at any depth."""
    if type(payload) not in _SCALARS and not _hold_none((payload,)):
        _find(payload, "payload")


def _hold_none(values: Iterable[Any]) -> bool:
    """Whether there are none. A dict or list of scalars costs one look at the types, in C."""
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is dict:
            inner = value.values()
        elif kind is list or kind is tuple:
            inner = value
        elif issubclass(kind, (*BYTES, *SETS)):
            return False
        else:
            inner = _fields(value).values()
        if not _are_scalars(map(type, inner)) and not _hold_none(inner):
            return False
    return True


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in getattr(type(value), "__dataclass_fields__", ())}


def _find(value: Any, path: str) -> None:
    if isinstance(value, BYTES):
        raise PayloadError(f"{path} is bytes, which JSON cannot hold: decode them, or write base64 or hex yourself")
    if isinstance(value, SETS):
        raise PayloadError(f"{path} is a set, which JSON cannot hold: make a list of it, sorted(...)")
    items = enumerate(value) if isinstance(value, (list, tuple)) else _fields(value).items()
    for key, item in value.items() if isinstance(value, dict) else items:
        _find(item, f"{path}[{key!r}]")
