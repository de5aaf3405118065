"""Environment variables as a source of values."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyop.configuration.keys import KEYS
from keyop.configuration.settings import CONFIG_VARIABLE, DATA_DIR_VARIABLE, ENVIRONMENT_PREFIX, SECTIONS
from keyop.configuration.yaml_text import YAML_FAULTS, read_value

if TYPE_CHECKING:
    from keyop.configuration.keys import Path

_log = logging.getLogger("keyop.config")


class Environment:
    """``KEYOP_SECTION__KEY``, and ``KEYOP_DATA_DIR`` for short. An empty variable counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values: dict[str, Any] = {}
        self._names: dict[Path, str] = {}
        short = (CONFIG_VARIABLE, DATA_DIR_VARIABLE)
        for name in sorted(environment):
            if name.startswith(ENVIRONMENT_PREFIX) and name not in short and environment[name]:
                self._take(name, environment[name])
        # Last, so that it goes before the long name of the same key.
        if environment.get(DATA_DIR_VARIABLE):
            self._set(DATA_DIR_VARIABLE, ("storage", "data_dir"), environment[DATA_DIR_VARIABLE])

    def place(self, path: Path) -> str:
        """The variable that sets this value, something within it, or what it is within."""
        return next(name for known, name in self._names.items() if known[: len(path)] == path[: len(known)])

    def _take(self, name: str, text: str) -> None:
        section, has_key, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if section in SECTIONS and has_key:
            self._set(name, (section, key), text if _is_text(f"{section}.{key}") else _value_of(text))
        elif has_key:
            self._set(name, (f"{section}.{key}",), text)  # an unknown key, which is reported as such
        elif section == "name":
            self._set(name, ("name",), text)
        else:
            _warn_of_variable(name)

    def _set(self, name: str, path: tuple[str, ...], value: Any) -> None:
        holder = self.values if len(path) == 1 else self.values.setdefault(path[0], {})
        holder[path[-1]] = value
        self._names[path] = name


def _is_text(key: str) -> bool:
    """Whether the key holds text, which must not be read as a number or a truth value."""
    return key in KEYS and KEYS[key].annotation is str


def _value_of(text: str) -> Any:
    try:
        return read_value(text)
    except YAML_FAULTS:
        return text  # the check of the key will say what is wrong with it


def _warn_of_variable(name: str) -> None:
    """A variable without ``__`` may belong to somebody else: only what looks like a slip is worth a word."""
    variables = [_variable(key) for key in KEYS if key not in SECTIONS and "[]" not in key]
    meant = difflib.get_close_matches(name, [CONFIG_VARIABLE, *variables], 1, 0.85)
    if meant:
        _log.warning("%s is not read; did you mean %s?", name, meant[0])


def _variable(key: str) -> str:
    return DATA_DIR_VARIABLE if key == "storage.data_dir" else ENVIRONMENT_PREFIX + key.replace(".", "__").upper()
