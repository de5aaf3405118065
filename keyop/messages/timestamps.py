"""Times in envelopes: RFC 3339 text on disk, nanoseconds since 1970 in the program."""

from __future__ import annotations

import re
from datetime import date
from time import gmtime, strftime

NS_PER_SECOND = 1_000_000_000

_UNIX_EPOCH_DAY = date(1970, 1, 1).toordinal()

# [0-9], because \d would take digits of every script.
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)

# What format_ns writes, and the part of it up to the fraction.
_USUAL_LENGTH = len("1970-01-01T00:00:00.000000000Z")
_PREFIX_LENGTH = len("1970-01-01T00:00:00.")

# One tuple, replaced whole: threads may race here, and each then sees a matching pair.
_last_second: tuple[int, str] = (0, "1970-01-01T00:00:00.")


def second_prefix(second: int) -> str:
    """The text of a second since 1970 up to the decimal point, `2026-03-31T14:22:01.`; the last one is kept."""
    global _last_second
    known, prefix = _last_second
    if second != known:
        prefix = _spell_second(second)
        _last_second = (second, prefix)
    return prefix


def _spell_second(second: int) -> str:
    moment = gmtime(second)
    # strftime("%Y") does not pad the year on every platform.
    return f"{moment.tm_year:04d}-{strftime('%m-%dT%H:%M:%S', moment)}."


def format_ns(ns: int) -> str:
    """Spell nanoseconds since 1970 as RFC 3339 in UTC with nine digits and `Z`, for the years 1 to 9999."""
    second, rest = divmod(ns, NS_PER_SECOND)
    return f"{second_prefix(second)}{rest:09d}Z"


def parse_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 text with `Z` or `±hh:mm`; None if it cannot be read.

    Any number of fraction digits, what is beyond the ninth is cut off. Go writes the year 1 for no time at all: that
    is a large negative number here.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _UNIX_EPOCH_DAY
    except ValueError:
        return None
    seconds_of_day = _seconds_of_day(int(hour), int(minute), int(second))
    zone = _zone_seconds(sign, offset_hours, offset_minutes)
    if seconds_of_day is None or zone is None:
        return None
    ns = int(fraction[:9].ljust(9, "0")) if fraction else 0
    return (days * 86_400 + seconds_of_day - zone) * NS_PER_SECOND + ns


class TimeReader:
    """Reads the times of one channel: quickly where they are of the usual form and in the second of the last one."""

    __slots__ = ("_prefix", "_second_ns")

    def __init__(self) -> None:
        self._prefix = ""
        self._second_ns = 0

    def parse_ns(self, text: str) -> int | None:
        """As the function `parse_ns`."""
        if len(text) == _USUAL_LENGTH and text[:_PREFIX_LENGTH] == self._prefix and text[-1] == "Z":
            digits = text[_PREFIX_LENGTH:-1]
            if digits.isdecimal() and digits.isascii():
                return self._second_ns + int(digits)
        ns = parse_ns(text)
        if ns is not None and len(text) == _USUAL_LENGTH and text[_PREFIX_LENGTH - 1] == "." and text[-1] == "Z":
            self._prefix = text[:_PREFIX_LENGTH]
            self._second_ns = ns - ns % NS_PER_SECOND
        return ns


def _seconds_of_day(hour: int, minute: int, second: int) -> int | None:
    # A leap second is written as 60 and counts as the second after it.
    if hour > 23 or minute > 59 or second > 60:
        return None
    return hour * 3600 + minute * 60 + second


def _zone_seconds(sign: str | None, hours: str, minutes: str) -> int | None:
    if sign is None:
        return 0
    if int(hours) > 23 or int(minutes) > 59:
        return None
    east = int(hours) * 3600 + int(minutes) * 60
    return east if sign == "+" else -east
