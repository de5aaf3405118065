"""The texts of faults: where it stands, key, value, and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyop.configuration.keys import dotted, nearest
from keyop.configuration.obsolete import OLD_KEYS
from keyop.configuration.settings import CONFIG_VARIABLE, DATA_DIR_VARIABLE

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from keyop.configuration.keys import Path
    from keyop.configuration.sources import Sources

_RULES = {
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "model_type": "must hold keys and their values",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
}
"""What is allowed, by pydantic's name for the fault."""


def say_fault(detail: ErrorDetails, sources: Sources) -> str:
    """One line for a fault that pydantic found."""
    path = detail["loc"]
    start = f"{sources.place(path)}: {dotted(path)}"
    if detail["type"] == "extra_forbidden":
        return start + _unknown(path)
    if detail["type"] == "missing":
        return start + " is not set" + (_WHERE_TO_SET_IT if path == ("storage", "data_dir") else "")
    value = f" = {shown(detail['input'])}" if sources.hold(path) else ""
    return f"{start}{value}: {_rule(detail)}"


_WHERE_TO_SET_IT = f": name a data directory, set {DATA_DIR_VARIABLE}, or set {CONFIG_VARIABLE} to a YAML file"


def _unknown(path: Path) -> str:
    advice = OLD_KEYS.get(dotted(path))
    return f" is a key of older releases: {advice}" if advice else f" is not a key; the nearest one is {nearest(path)}"


def _rule(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])  # our own checks say themselves what is allowed
    return _RULES.get(detail["type"], detail["msg"]).format(**context)


def shown(value: object) -> str:
    """The value, or the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
