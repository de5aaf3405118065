"""A YAML file as a source of values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keyop.configuration.faults import shown
from keyop.configuration.obsolete import take_out_old_keys
from keyop.configuration.yaml_text import YAML_FAULTS, read_document, say_yaml_fault
from keyop.errors import ConfigError

if TYPE_CHECKING:
    from keyop.configuration.keys import Path


class File:
    """A YAML file. Raises ConfigError if it cannot be read, has a syntax error, or holds no mapping."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        try:
            with open(self.path, "rb") as file:
                document, self._lines = read_document(file)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from error
        except YAML_FAULTS as error:
            raise ConfigError(say_yaml_fault(self.path, error)) from error
        if document is None:
            raise ConfigError(f"{self.path}: is empty; at least storage.data_dir is needed")
        if not isinstance(document, dict):
            raise ConfigError(f"{self.place(())}: must hold sections, such as 'storage:', not {shown(document)}")
        take_out_old_keys(document, self.place)
        self.values: dict[str, Any] = document

    def place(self, path: Path) -> str:
        """File and line; of a key that is missing, the line of what it is missing in."""
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self.path}:{self._lines.get(path, 1)}"
