"""Where to begin in a channel, as it is written on a command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from keyop.configuration.durations import parse_duration

FORMS = "earliest, latest, an offset in bytes, a time (2026-03-31T14:22 or with a zone), or how long ago (10m, 2h, 7d)"


class Moment(click.ParamType):  # type: ignore[type-arg]
    """``earliest``, ``latest``, an offset, a time, or how long ago; becomes what `follow` and `subscribe` take."""

    name = "where"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int | datetime:
        """Fails with all forms that there are."""
        if not isinstance(value, str):
            assert isinstance(value, (int, datetime))
            return value
        if value in ("earliest", "latest"):
            return value
        if value.isascii() and value.isdigit():
            return int(value)
        return _ago(value) or _time(value) or self.fail(f"{value!r} is none of {FORMS}", param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration: ``500ms``, ``30s``, ``1h30m``; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        text = str(value)
        try:
            seconds = float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds if seconds >= 0 else self.fail(f"{text!r} is negative", param, ctx)


def _ago(text: str) -> datetime | None:
    try:
        return datetime.now(UTC) - timedelta(seconds=abs(parse_duration(text)))
    except (ValueError, OverflowError):
        return None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
