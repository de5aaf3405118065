"""What the value of a key may be: types that pydantic checks, narrower than those of Python."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr

from keyop.configuration.address import checked_address
from keyop.configuration.durations import parse_duration
from keyop.names import check_channel, check_subscriber_id

_MOST = 10**12
"""Far beyond what makes sense, and small enough that no product with a unit leaves 64 bits."""
_MOST_MS = 2**31 - 1
"""Milliseconds travel in 32-bit words of shared memory. 24 days."""
_MOST_DAYS = 36_500
_LONGEST_MESSAGE_BYTES = 10_485_760
"""Go's readers hold no longer line."""


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("must be a duration, such as 7d, 1d12h, 1h30m, 90s or 500ms")
    return parse_duration(str(value))


def _path(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _address(value: str) -> str:
    if value:
        checked_address(value)
    return value


def _hub_address(value: str) -> str:
    if value:
        host, port = checked_address(value)
        if not host or not port:
            raise ValueError("needs a host and a port: hub.example:7740")
    return value


_is_app = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[^\W\d]\w*(?:\.[^\W\d]\w*)*)?").fullmatch
_is_role = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}").fullmatch
_ROLES = ("writer", "hub", "client", "metrics", "dashboard", "supervisor")


def _app(value: str) -> str:
    if not _is_app(value):
        raise ValueError("must be a module and an app in it: 'shop.orders:app'")
    return value


def _role(value: str) -> str:
    if value and not _is_role(value):
        raise ValueError("must be up to 50 of a-z 0-9 . _ -, and begin with a letter or a digit")
    if value in _ROLES:
        raise ValueError(f"is the name of a process of keyop's own, as are {', '.join(_ROLES)}")
    return value


_Number = TypeVar("_Number", int, float)


def _negative_is_off(value: _Number) -> _Number:
    return max(value, type(value)(0))


Count = Annotated[StrictInt, Field(ge=0, le=_MOST)]
Signed = Annotated[StrictInt, Field(ge=-_MOST, le=_MOST)]
Limit = Annotated[Signed, AfterValidator(_negative_is_off)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]

Milliseconds = Annotated[StrictInt, Field(ge=0, le=_MOST_MS)]
Spin = Annotated[StrictInt, Field(ge=0, le=100_000)]
Days = Annotated[StrictInt, Field(ge=-_MOST_DAYS, le=_MOST_DAYS)]
Duration = Annotated[float, BeforeValidator(_seconds), AfterValidator(_negative_is_off)]

MessageBytes = Annotated[StrictInt, Field(ge=1_024, le=_LONGEST_MESSAGE_BYTES)]
JournalSize = Annotated[StrictInt, Field(ge=1, le=1_024)]

FilePath = Annotated[StrictStr, BeforeValidator(_path)]
ListenAddress = Annotated[StrictStr, AfterValidator(_address)]
HubAddress = Annotated[StrictStr, AfterValidator(_hub_address)]
Channel = Annotated[StrictStr, AfterValidator(check_channel)]
SubscriberId = Annotated[StrictStr, AfterValidator(check_subscriber_id)]

AppName = Annotated[StrictStr, AfterValidator(_app)]
RoleName = Annotated[StrictStr, AfterValidator(_role)]
ProcessCount = Annotated[StrictInt, Field(ge=1, le=64)]
