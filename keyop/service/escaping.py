"""How words and paths are written in a unit, so that systemd reads them as they are (systemd.syntax(7)).

Three signs mean something there: ``%`` begins a specifier everywhere, ``$`` a variable in the arguments of a command,
and quotes and backslashes do what they do in C.
"""

from __future__ import annotations

from keyop.errors import ConfigError


def line(value: str) -> str:
    """A path that is the whole value: ``WorkingDirectory=``. Blanks need nothing there, quotes would be part of it."""
    if value.endswith("\\") or value != value.strip():
        raise ConfigError(f"{value!r} cannot be written into a unit: it ends in a backslash, or in a blank")
    return _checked(value).replace("%", "%%")


def word(value: str) -> str:
    """One of several words: a path in ``ReadWritePaths=``, the program in ``ExecStart=``."""
    escaped = _checked(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != value or any(sign in value for sign in " \t';") else value


def argument(value: str) -> str:
    """An argument in ``ExecStart=``."""
    return word(value).replace("$", "$$")


def _checked(value: str) -> str:
    if not value.isprintable():
        raise ConfigError(f"{value!r} cannot be written into a unit: it has line ends or control characters")
    return value
