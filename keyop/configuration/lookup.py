"""Which settings a path, a configuration, or nothing at all stands for.

Does without `keyop.config` (and so without pydantic) where there is no file and no variable to read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyop.configuration.settings import DATA_DIR_VARIABLE, ENVIRONMENT_PREFIX, Settings, StorageSettings
from keyop.errors import ConfigError
from keyop.readiness import READY_VARIABLE

if TYPE_CHECKING:
    from keyop.config import Config

MESSAGE_VARIABLES = frozenset(
    f"KEYOP_{name}"
    for name in ("ID", "TS", "CHANNEL", "ORIGIN", "TYPE", "CORRELATION_ID", "SERVICE_NAME", "OFFSET", "ATTEMPT")
)
"""No settings: what a command that ``keyop consume`` runs is told of its message."""


def settings_for(source: str | os.PathLike[str] | Settings | Config | None = None, **sections: Any) -> Settings:
    """The settings that `source` stands for, with those of the environment.

    A path of an existing file, or one that ends in ``.yaml`` or ``.yml``, is a configuration file; any other path is
    a data directory. None: ``KEYOP_CONFIG`` or ``KEYOP_DATA_DIR`` says which. `sections` are arguments that go before
    file and environment: ``storage={"sync_interval_ms": 200}``. Finished settings come back as they are.

    Raises ConfigError, which names every fault.
    """
    if isinstance(source, Settings):
        return _finished(source, sections)
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        if _is_config_file(path):
            from keyop.config import Config

            return Config.load(path, **sections).to_settings()
        return _for_directory(path, sections)
    if source is None:
        return _for_directory(None, sections)
    from keyop.config import Config

    if not isinstance(source, Config):
        raise ConfigError(f"neither a path nor a configuration: {source!r}")
    return _finished(source.to_settings(), sections)


def _is_config_file(path: str) -> bool:
    # One look: between two, another process may make the directory.
    return os.path.isfile(path) or (path.lower().endswith((".yaml", ".yml")) and not os.path.isdir(path))


def _for_directory(path: str | None, sections: Mapping[str, Any]) -> Settings:
    directory = path if path is not None else os.environ.get(DATA_DIR_VARIABLE)
    if directory and not sections and not _environment_has_more():
        return Settings(storage=StorageSettings(data_dir=directory), explicit=frozenset({"storage.data_dir"}))
    from keyop.config import Config

    if path is not None:
        sections = {**sections, "storage": {**sections.get("storage", {}), "data_dir": path}}
    return Config(**sections).to_settings()


def _environment_has_more() -> bool:
    others = (name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and name != DATA_DIR_VARIABLE)
    return any(name not in MESSAGE_VARIABLES and name != READY_VARIABLE for name in others)


def _finished(settings: Settings, sections: Mapping[str, Any]) -> Settings:
    if sections:
        raise ConfigError(f"finished settings take no arguments ({', '.join(sections)}): use dataclasses.replace")
    return settings
