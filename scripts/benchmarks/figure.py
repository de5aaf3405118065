"""A figure is one row of the table; a measurement is one run that yields values for some rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Title:
    """What a key stands for: the heading above its rows, and the unit of its values."""

    text: str
    unit: str
    decimals: int = 1


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of the full work a run does: `--quick` does a fifth of it."""

    quick: bool

    def __call__(self, full: int, least: int = 1) -> int:
        return max(least, full // 5) if self.quick else full


@dataclass(frozen=True, slots=True)
class Room:
    """What a measurement is given: an empty directory on the disk under test, and the scale."""

    place: Path
    scale: Scale


class Skipped(Exception):
    """Raised by a measurement that cannot be had here; its text is the reason that the report prints."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run by one contender. It returns a value for each key it measured."""

    name: str
    contender: str
    run: Callable[[Room], Mapping[str, float]]
