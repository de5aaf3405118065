"""Durations as the Go program writes them, days included: ``7d``, ``1d12h``, ``1h30m``, ``500ms``, ``-1s``."""

from __future__ import annotations

import re

_NS_PER_SECOND = 1_000_000_000
_NS_PER_UNIT = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # the Greek letter, which Go reads as well
    "ms": 1_000_000,
    "s": _NS_PER_SECOND,
    "m": 60 * _NS_PER_SECOND,
    "h": 3_600 * _NS_PER_SECOND,
    "d": 86_400 * _NS_PER_SECOND,
}
_LONGEST_NS = 2**63 - 1
"""Go counts nanoseconds in 64 bits: a little more than 292 years."""

_LONGEST_TEXT = 100
"""The patterns below take quadratic time for a long row of digits."""

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h|d)")
# Days stand in front, as in Go: '12h1d' is none. Always fullmatch: `$` would let a final newline pass.
_is_duration = re.compile(rf"[-+]?(?:{_NUMBER}d)?(?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))*").fullmatch
_is_number = re.compile(rf"[-+]?{_NUMBER}").fullmatch


def parse_duration(text: str) -> float:
    """The seconds that `text` stands for, exact to the nanosecond; a finer fraction is cut off.

    Raises ValueError, whose text says what is allowed, also for a number without a unit other than 0.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"{text[:20]!r}... is not a duration: it has {len(text):,} characters")
    digits = text.lstrip("+-")
    if _is_number(text):
        if not digits.strip("0."):
            return 0.0
        raise ValueError(f"{text!r} has no unit: write {digits}s, {digits}ms, {digits}h or {digits}d")
    if not digits or not _is_duration(text):
        raise ValueError(f"{text!r} is not a duration, such as 7d, 1d12h, 1h30m, 90s or 500ms")
    total_ns = sum(_nanoseconds(number, unit) for number, unit in _PART.findall(text))
    if total_ns > _LONGEST_NS:
        raise ValueError(f"{text!r} is longer than 292 years")
    # A quotient of two integers is correctly rounded; a product with 1e-9 would not be.
    return (-total_ns if text.startswith("-") else total_ns) / _NS_PER_SECOND


def format_duration(seconds: float) -> str:
    """The shortest text of this form that `parse_duration` reads as the same nanoseconds: ``1d12h``, ``1m30.5s``."""
    numerator, denominator = seconds.as_integer_ratio()
    total_ns = (2 * abs(numerator) * _NS_PER_SECOND + denominator) // (2 * denominator)
    sign = "-" if seconds < 0 and total_ns else ""
    if total_ns < _NS_PER_SECOND:
        return sign + _below_a_second(total_ns)
    parts = []
    for unit in ("d", "h", "m"):
        count, total_ns = divmod(total_ns, _NS_PER_UNIT[unit])
        if count:
            parts.append(f"{count}{unit}")
    if total_ns:
        parts.append(_decimal(total_ns, "s"))
    return sign + "".join(parts)


def _nanoseconds(number: str, unit: str) -> int:
    whole, _, fraction = number.partition(".")
    per_unit, scale = _NS_PER_UNIT[unit], int("1" + "0" * len(fraction))
    return int(whole or "0") * per_unit + int(fraction or "0") * per_unit // scale


def _below_a_second(total_ns: int) -> str:
    if not total_ns:
        return "0s"
    unit = next(unit for unit in ("ms", "us", "ns") if total_ns >= _NS_PER_UNIT[unit])
    return _decimal(total_ns, unit)


def _decimal(total_ns: int, unit: str) -> str:
    per_unit = _NS_PER_UNIT[unit]
    whole, rest = divmod(total_ns, per_unit)
    fraction = str(rest).rjust(len(str(per_unit)) - 1, "0").rstrip("0")
    return f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
