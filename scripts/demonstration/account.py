"""What was published to a channel, and what became of each message at each who handles it, by id."""

from __future__ import annotations

import threading
from collections import Counter


class Account:
    """Compares ids, not numbers: one message lost and another one handled twice would look right in a sum."""

    def __init__(self, channel: str, workers: list[str]) -> None:
        self._channel = channel
        self._published: set[str] = set()
        self._handled: dict[str, Counter[str]] = {worker: Counter() for worker in workers}
        self._dead: dict[str, Counter[str]] = {worker: Counter() for worker in workers}
        self._lock = threading.Lock()

    def note_published(self, id: str) -> None:
        """``publish`` has returned this id."""
        with self._lock:
            self._published.add(id)

    def note_handled(self, worker: str, id: str) -> None:
        """A handler has come to its end."""
        with self._lock:
            self._handled[worker][id] += 1

    def note_dead(self, worker: str, id: str) -> None:
        """A dead letter was read."""
        with self._lock:
            if worker in self._dead:
                self._dead[worker][id] += 1

    def missing(self) -> set[str]:
        """Which messages still have an outcome to come."""
        with self._lock:
            lost = [self._published - self._outcomes(worker).keys() for worker in self._handled]
            return set().union(*lost)

    def _outcomes(self, worker: str) -> Counter[str]:
        return self._handled[worker] + self._dead[worker]

    def sums(self) -> tuple[list[str], bool]:
        """The sums as lines, and whether every message has exactly one outcome at each worker."""
        with self._lock:
            published = self._published
            lines = [f"{self._channel} published: {len(published)}"]
            complete = bool(published)
            for worker, handled in self._handled.items():
                outcomes = self._outcomes(worker)
                lost = published - outcomes.keys()
                repeated = [id for id in published & outcomes.keys() if outcomes[id] > 1]
                earlier = len(outcomes.keys() - published)
                complete = complete and not lost and not repeated
                lines.append(
                    f"{worker}: {len(published & handled.keys())} handled + "
                    f"{len(published & self._dead[worker].keys())} dead letters, "
                    f"{len(lost)} lost, {len(repeated)} twice"
                    + (f", and {earlier} from an earlier run" if earlier else "")
                )
        return lines, complete
