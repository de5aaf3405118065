"""What was measured so far, by figure, contender and repetition."""

from __future__ import annotations

from collections.abc import Mapping


class Results:
    """Samples, and the reasons for those that are missing."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], dict[int, float]] = {}
        self.missing: dict[tuple[str, str], str] = {}

    def add(self, repeat: int, contender: str, values: Mapping[str, float]) -> None:
        """Note what one measurement of one repetition yielded."""
        for key, value in values.items():
            self.samples.setdefault((key, contender), {})[repeat] = value

    def miss(self, name: str, contender: str, reason: str) -> None:
        """Note that a measurement could not be had, and why; the first reason stays."""
        self.missing.setdefault((name, contender), reason)
