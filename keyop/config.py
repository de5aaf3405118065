"""Reading and checking a configuration: a YAML file, environment variables, arguments.

Keys and defaults are those of the Go program, so that its files can be used as they are; `docs/configuration.md` has
the table. What a process works with afterwards is a `keyop.configuration.settings.Settings`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from pydantic import PrivateAttr, ValidationError

from keyop.configuration.faults import say_fault
from keyop.configuration.schema import Schema
from keyop.configuration.settings import CONFIG_VARIABLE, SECTIONS, Settings
from keyop.configuration.sources import Sources
from keyop.errors import ConfigError


class Config(Schema):
    """A checked configuration: arguments go before environment variables, these before the file, that before defaults.

    `config_file` is the YAML file, by default the one that ``KEYOP_CONFIG`` names, if any. The other arguments are
    sections: ``Config(storage={"data_dir": "./data", "retention": "7d"})``; None counts as not given.

    Raises ConfigError with one line for each fault: where it stands, key, value, and what is allowed.
    """

    _config_file: str | None = PrivateAttr(default=None)

    def __init__(self, *, config_file: str | os.PathLike[str] | None = None, **sections: Any) -> None:
        config_file = config_file or os.environ.get(CONFIG_VARIABLE)
        sources = Sources(sections, os.environ, config_file)
        try:
            super().__init__(**sources.merged())
        except ValidationError as error:
            faults = [say_fault(detail, sources) for detail in error.errors(include_url=False)]
            raise ConfigError("\n".join(faults)) from None
        self._config_file = os.fsdecode(config_file) if config_file else None

    @classmethod
    def load(cls, path: str | os.PathLike[str], **sections: Any) -> Config:
        """The configuration of this file, under environment and arguments. Raises ConfigError."""
        return cls(config_file=path, **sections)

    @property
    def explicit(self) -> frozenset[str]:
        """The dotted keys that file, environment or arguments set."""
        keys = {f"{name}.{key}" for name in SECTIONS for key in getattr(self, name).model_fields_set}
        return frozenset(keys | ({"name"} & self.model_fields_set))

    def to_settings(self) -> Settings:
        """The plain values that processes work with."""
        plain: Settings = self.to_plain()
        return replace(plain, name=self.name or None, explicit=self.explicit, config_file=self._config_file)
