"""What a unit has to say for a configuration, on this host."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyop.configuration.address import host_and_port
from keyop.configuration.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, Settings
from keyop.errors import ConfigError
from keyop.service.unit import Unit

_NAME = re.compile(r"[A-Za-z0-9_.@:-]{1,200}")
_LAST_PRIVILEGED_PORT = 1023


def describe(config: Path, *, name: str, is_system: bool, run_as: str = "") -> Unit:
    """The unit that runs this configuration. Raises `ConfigError`.

    Relative paths in the file count from the current directory, for the service as well. The environment does not
    count: the service will not have it.
    """
    name = name.removesuffix(".service")
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"--name {name!r}: a unit's name has 1 to 200 of A-Z a-z 0-9 . _ - @ :")
    here = Path.cwd()
    settings = settings_of(config)
    data_dir = here / settings.storage.data_dir
    if not is_system and run_as:
        raise ConfigError("--run-as is for a system unit; a user's unit runs as that user")
    tls = [here / path for path in (settings.tls.cert, settings.tls.key, settings.tls.ca) if path]
    return Unit(
        name=name,
        is_system=is_system,
        program=program(),
        config=config.absolute(),
        data_dir=data_dir,
        working_directory=here,
        others=(Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parent, *tls),
        run_as=_user(run_as, data_dir) if is_system else "",
        low_port=settings.hub.enabled and 0 < host_and_port(settings.hub.listen_addr)[1] <= _LAST_PRIVILEGED_PORT,
    )


def settings_of(config: Path) -> Settings:
    """What the file alone says. Raises `ConfigError`."""
    from keyop.config import Config

    with _without_environment():
        return Config.load(config).to_settings()


def foreign_variables() -> list[str]:
    """Variables that count for a command typed here, and not for the service."""
    return sorted(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE)


def program() -> tuple[str, ...]:
    """What runs this keyop: its script beside the interpreter, else the interpreter."""
    script = Path(sys.executable).parent / "keyop"
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "keyop")


def _user(wanted: str, data_dir: Path) -> str:
    """Whom the service runs as: who owns the data directory, unless told. Empty for root."""
    try:
        entry = pwd.getpwnam(wanted) if wanted else pwd.getpwuid(data_dir.stat().st_uid)
    except KeyError:
        if wanted:
            raise ConfigError(f"--run-as {wanted!r}: there is no such user; useradd --system {wanted}") from None
        raise ConfigError(f"{data_dir}: belongs to a user without a name; --run-as says who is to run it") from None
    except OSError:
        return ""
    return entry.pw_name if entry.pw_uid else ""


@contextmanager
def _without_environment() -> Iterator[None]:
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(ENVIRONMENT_PREFIX)}
    try:
        yield
    finally:
        os.environ.update(taken)
