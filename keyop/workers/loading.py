"""From ``MODULE:APP`` to the app: imported, or a sentence about what is in the way."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from keyop.app import App
from keyop.errors import AppError

_is_name = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*").fullmatch
_LAST_FRAMES = 5


class Reference(NamedTuple):
    """Where an app stands."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def parse(text: str) -> Reference:
    """``MODULE:APP``, or ``MODULE`` for the app that is called ``app``. Raises `AppError`."""
    module, colon, attribute = text.partition(":")
    if module.endswith(".py") or "/" in module:
        as_module = module.removesuffix(".py").strip("./").replace("/", ".")
        raise AppError(f"{text}: name the module, not its file: {as_module}:{attribute or 'app'}")
    if not colon:
        attribute = "app"
    if not _is_name(module) or not _is_name(attribute):
        raise AppError(f"{text!r}: an app is named MODULE:APP, for example shop.orders:app")
    return Reference(module, attribute)


def load(reference: Reference) -> App:
    """Import the module and give its app. Raises `AppError` with what it found instead."""
    found: Any = _import(reference)
    module = found
    for name in reference.attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AppError(f"{_where(module)} has no {reference.attribute}{_apps_of(module)}") from None
    if not isinstance(found, App):
        kind = "the class keyop.App itself" if found is App else f"a {type(found).__name__}"
        raise AppError(f"{reference} is {kind}, not a keyop.App{_apps_of(module)}")
    return found


def _import(reference: Reference) -> ModuleType:
    try:
        return importlib.import_module(reference.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{reference.module}.".startswith(f"{error.name}."):
            raise AppError(_raised(reference, error)) from error
        raise AppError(_not_there(reference, error.name)) from error
    except (Exception, SystemExit) as error:
        raise AppError(_raised(reference, error)) from error


def _not_there(reference: Reference, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if not parent:
        return f"{reference}: there is no module {missing}, neither in {sys.path[0]} nor where Python looks otherwise"
    return f"{reference}: {_where(sys.modules[parent])} has no module {last}"


def _where(module: ModuleType) -> str:
    return f"{module.__name__} ({getattr(module, '__file__', None) or 'a package without a file'})"


def _apps_of(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, App))
    if not names:
        return "; it has no keyop.App at all"
    return f"; it has {', '.join(f'{module.__name__}:{name}' for name in names)}"


def _raised(reference: Reference, error: BaseException) -> str:
    """The end of the module's own traceback, without the frames of whoever imported it."""
    what = "ended the process" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    way_out = "; what it does as a program belongs below: if __name__ == '__main__'" * isinstance(error, SystemExit)
    first = _first_frame_of_others(error.__traceback__)
    lines = "".join(traceback.format_exception(type(error), error, first, limit=-_LAST_FRAMES, chain=False))
    indented = "\n".join(f"  {line}" for line in lines.rstrip().splitlines())
    return f"{reference}: {reference.module} {what} when it was imported{way_out}\n{indented}"


def _first_frame_of_others(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen importlib") and name != importlib.__file__:
            return frames
        frames = frames.tb_next
    return None
