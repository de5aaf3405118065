"""All keys there are, how one is written, and which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TypeAlias, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from keyop.configuration.schema import Schema

Path: TypeAlias = tuple[str | int, ...]
"""The way to a value: ``("client", "hubs", 0, "addr")``."""


def dotted(path: Path) -> str:
    """``client.hubs[0].addr``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def nearest(path: Path) -> str:
    """The key that was probably meant, without the index of an entry: ``client.hubs[].addr``."""
    parent, _, leaf = "".join("[]" if isinstance(part, int) else f".{part}" for part in path)[1:].rpartition(".")

    def likeness(known: str) -> float:
        known_parent, _, known_leaf = known.rpartition(".")
        # The key's own name says more than the section: many a key stands in the wrong one.
        return _similarity(leaf, known_leaf) + 0.4 * _similarity(parent, known_parent)

    return max(KEYS, key=likeness)


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        entries = get_args(field.annotation)
        below, dot = (entries[0], "[].") if entries else (field.annotation, ".")
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from _keys_of(below, prefix + name + dot)


KEYS = dict(_keys_of(Schema))
"""Every section and key, dotted; those of a list's entries like ``hub.allowed_peers[].name``."""
