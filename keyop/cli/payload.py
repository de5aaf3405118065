"""A payload as it is given on a command line or in a line of input."""

from __future__ import annotations

from typing import Any

from keyop.errors import PayloadError
from keyop.messages.json_text import decode_json


def parse_json(text: bytes) -> Any:
    """A JSON value. Raises `PayloadError`."""
    try:
        return decode_json(text)
    except RecursionError:
        raise PayloadError("is nested too deep") from None
    except Exception as error:  # msgspec and json have no error in common but this
        shown = text[:60].decode(errors="replace") + ("..." if len(text) > 60 else "")
        raise PayloadError(f"{shown!r} is not JSON: {error}") from None


def parse_text(text: bytes) -> str:
    """Plain text, to be published as a JSON string. Raises `PayloadError`."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(f"is not UTF-8: {error}") from None
