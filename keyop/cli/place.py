"""The options that say which data directory: ``--data-dir`` and ``--config``, with their variables."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyop.cli.paths import directories, files
from keyop.configuration.lookup import settings_for
from keyop.configuration.settings import CONFIG_VARIABLE, DATA_DIR_VARIABLE
from keyop.errors import ConfigError, DataDirectoryError
from keyop.storage.directory import DataDirectory

if TYPE_CHECKING:
    from keyop.configuration.settings import Settings

DEFAULT_FILE = "keyop.yaml"
"""What a command reads where nothing says what else."""
_LONG_DATA_DIR_VARIABLE = "KEYOP_STORAGE__DATA_DIR"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Place:
    """Where a command works."""

    def __init__(self, data_dir: str | None, config: str | None) -> None:
        self._data_dir = data_dir
        self._config = config

    @property
    def data_dir(self) -> str | None:
        """What was said of it beside the configuration file."""
        return self._data_dir

    def with_file(self) -> Place:
        """The same, with the configuration file of this directory where no other one was named.

        Raises `click.UsageError` if there is none, and nothing else was said.
        """
        if self._config is not None:
            return self
        if os.path.exists(DEFAULT_FILE):
            return Place(self._data_dir, DEFAULT_FILE)
        if self._data_dir is not None:
            return self
        raise click.UsageError(f"there is no {DEFAULT_FILE} here: `keyop init` writes one, --config FILE names another")

    def directory(self) -> DataDirectory:
        """The data directory, for a command that needs nothing else.

        A configuration is read only if nothing else names it. One with faults will do if it tells where the data is,
        and the faults are said: who breaks the file under a running `keyop up` can still look at it, and stop it.

        Raises `ConfigError`, `DataDirectoryError`.
        """
        path = self._data_dir or self._configured_directory()
        if os.path.isfile(path):
            raise DataDirectoryError(f"{path}: is a file where a data directory should be")
        return DataDirectory(path)

    def _configured_directory(self) -> str:
        try:
            return self.settings().storage.data_dir
        except ConfigError as error:
            named = self.named_directory()
            if named is None or not os.path.isdir(named):
                raise
            for line in str(error).splitlines():
                click.echo(f"keyop: {line}", err=True)
            click.echo(
                f"keyop: the configuration cannot be used; of it this takes the data directory alone: {named}", err=True
            )
            return named

    def named_directory(self) -> str | None:
        """The path of the data directory as a shell may have it while it completes a word: quickly, and unchecked.

        Of a configuration file this one key is read. None where nothing names it, or the file cannot be read.
        """
        named = self._data_dir or os.environ.get(_LONG_DATA_DIR_VARIABLE)
        config = self._config or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
        if named or not config:
            return named
        import yaml

        try:
            with open(config, "rb") as file:
                path = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["storage"]["data_dir"]
        except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError):
            return None
        return path if isinstance(path, str) else None

    def settings(self) -> Settings:
        """All settings. Raises `ConfigError`, `DataDirectoryError`."""
        if self._data_dir and os.path.isfile(self._data_dir):
            raise DataDirectoryError(
                f"{self._data_dir}: is a file where a data directory should be (a configuration goes to --config)"
            )
        if self._config:
            from keyop.config import Config

            storage = {"storage": {"data_dir": self._data_dir}} if self._data_dir else {}
            return Config.load(self._config, **storage).to_settings()
        if not self._data_dir and not os.environ.get(_LONG_DATA_DIR_VARIABLE):
            if os.path.exists(DEFAULT_FILE):
                return Place(None, DEFAULT_FILE).settings()
            raise click.UsageError(
                f"no data directory: give --data-dir DIR or --config FILE, or set {DATA_DIR_VARIABLE} or "
                f"{CONFIG_VARIABLE}; there is no {DEFAULT_FILE} here either"
            )
        if self._data_dir and self._data_dir.lower().endswith((".yaml", ".yml")) and not os.path.isdir(self._data_dir):
            return settings_for(None, storage={"data_dir": self._data_dir})
        return settings_for(self._data_dir)


def at_place(function: _Function) -> Callable[..., Any]:
    """Give a command both options and, as its first argument, the `Place` that they name."""

    @click.option(
        "--data-dir",
        "-d",
        envvar=DATA_DIR_VARIABLE,
        show_envvar=True,
        metavar="DIR",
        shell_complete=directories,
        help="The data directory.",
    )
    @click.option(
        "--config",
        "-c",
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        metavar="FILE",
        shell_complete=files,
        help="A configuration file (YAML).",
    )
    @functools.wraps(function)
    def command(data_dir: str | None, config: str | None, **others: Any) -> Any:
        return function(Place(data_dir, config), **others)

    return command


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
