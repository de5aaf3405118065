"""The three places that values come from, which one counts, and which one is to blame."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from keyop.configuration.environment import Environment
from keyop.configuration.file import File

if TYPE_CHECKING:
    from keyop.configuration.keys import Path


class Source(Protocol):
    """One of the three. A value of None is a missing one."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Sections with their keys, and ``name``."""

    def place(self, path: Path) -> str:
        """How a message calls the place of a value that this source sets."""


class Arguments:
    """What the caller passes."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.values = sections

    def place(self, path: Path) -> str:
        """There is no more to say."""
        return "argument"


class Sources:
    """Arguments, then the environment, then the file if there is one. Raises ConfigError for what is no YAML."""

    def __init__(
        self, sections: Mapping[str, Any], environment: Mapping[str, str], config_file: str | os.PathLike[str] | None
    ) -> None:
        self._in_order: list[Source] = [Arguments(sections), Environment(environment)]
        self._file = File(config_file) if config_file else None
        if self._file:
            self._in_order.append(self._file)

    def merged(self) -> dict[str, Any]:
        """The values of all sources, key by key; of a key, and of a list, the first source's counts."""
        merged: dict[str, Any] = {"storage": {}}
        for source in reversed(self._in_order):
            for name, value in source.values.items():
                if isinstance(value, Mapping):
                    below = merged.get(name)
                    given = {key: item for key, item in value.items() if item is not None}
                    merged[name] = {**below, **given} if isinstance(below, Mapping) else given
                elif value is not None:
                    merged[name] = value
        return merged

    def hold(self, path: Path) -> bool:
        """Whether one of them sets this value; otherwise it is a default."""
        return any(_holds(source, path) for source in self._in_order)

    def place(self, path: Path) -> str:
        """Where the value was set; of a missing one, the file's section that it is missing in."""
        for source in self._in_order:
            if _holds(source, path):
                return source.place(path)
        return self._file.place(path) if self._file else "configuration"


def _holds(source: Source, path: Path) -> bool:
    value: Any = source.values
    for part in path:
        if not isinstance(value, Mapping):
            return True  # the rest lies within a list, which a source sets whole
        value = value.get(part)
        if value is None:
            return False
    return True
