"""How long to wait before the next attempt to connect: longer each time, and never quite as long as others."""

from __future__ import annotations

import random

from keyop.configuration.settings import FederationSettings


class Backoff:
    """Waits in seconds, from ``reconnect_base_ms`` doubling up to ``reconnect_max_ms``, each spread by the jitter."""

    def __init__(self, settings: FederationSettings, random: random.Random | None = None) -> None:
        self._settings = settings
        self._random = random or _random
        self._failures = 0

    def succeeded(self) -> None:
        """Begin anew with the shortest wait."""
        self._failures = 0

    def next_s(self) -> float:
        """The next wait."""
        settings = self._settings
        # Not 2 ** failures: after a month of attempts that is a number of a million digits.
        doublings = min(self._failures, 32)
        self._failures += 1
        return self._spread(min(settings.reconnect_base_ms << doublings, settings.reconnect_max_ms))

    def longest_s(self) -> float:
        """The longest wait: when to try again makes no difference soon."""
        return self._spread(self._settings.reconnect_max_ms)

    def _spread(self, wait_ms: int) -> float:
        jitter = self._settings.reconnect_jitter
        return wait_ms / 1000 * self._random.uniform(1 - jitter, 1 + jitter)


_random = random.Random()
