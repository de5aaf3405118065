"""What all sections have in common: no unknown keys, Go's idea of zero, and the way to plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

ZERO_COUNTS = object()
"""Marks a key whose explicit zero is a value, although its default is another."""


class Section(BaseModel):
    """A section of the file, an entry of a list in it, or the whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plain: ClassVar[type[Any]]
    """The class of `keyop.configuration.settings` that has the same keys."""

    @model_validator(mode="before")
    @classmethod
    def _without_missing(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if not cls._is_missing(key, value)}

    @classmethod
    def _is_missing(cls, key: str, value: object) -> bool:
        """As in Go, a zero is as good as no value, unless the key is marked otherwise."""
        if type(value) not in (int, float) or value:
            return value is None
        field = cls.model_fields.get(key)
        if field is None or ZERO_COUNTS in field.metadata:
            return False
        return isinstance(field.default, (int, float)) and bool(field.default)

    def to_plain(self) -> Any:
        """The same values without pydantic."""
        return self.plain(**{key: _plain(value) for key, value in self})


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.to_plain()
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value
