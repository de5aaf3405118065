"""What a check found: how bad it is, a sentence, and the way out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "problem"]

LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "problem")
"""From good to bad. Note: worth knowing. Warning: it will hurt one day. Problem: it does not work as it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one check."""

    check: str
    """The check's name, ``shared-memory``."""

    level: Level

    text: str
    """What was seen, as a sentence without its full stop."""

    remedy: str = ""
    """The way out; empty where nothing is to be done."""

    values: dict[str, Any] = field(default_factory=dict)
    """What was measured, for scripts. Names carry their units."""


def worst(findings: list[Finding]) -> Level:
    """The worst level among them."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
