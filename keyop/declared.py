"""A handler that an app has declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keyop.names import is_pattern, matches


@dataclass(frozen=True, slots=True)
class Declared:
    """One handler of an app, and what `keyop.Messenger.subscribe` will be told of it."""

    channel: str
    """A channel, or a pattern of channel names."""
    id: str
    handler: Callable[..., Any]
    options: dict[str, Any]
    """Those that were given; the configuration decides about the others."""

    @property
    def name(self) -> str:
        """Where the handler stands in the source."""
        return name_of(self.handler)

    def __str__(self) -> str:
        return f"{self.channel}/{self.id} ({self.name})"


def overlap(one: str, other: str) -> bool:
    """Whether two declarations of one id certainly mean the same channel. Of two patterns only equal ones are known."""
    if one == other:
        return True
    if is_pattern(one) and not is_pattern(other):
        return matches(one, other)
    return is_pattern(other) and not is_pattern(one) and matches(other, one)


def name_of(handler: Callable[..., Any]) -> str:
    """Where a function stands in the source."""
    module = getattr(handler, "__module__", type(handler).__module__)
    return f"{module}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"
