"""What was published, and what became of each message at each worker, by id."""

from __future__ import annotations

import threading
from collections import Counter


class Account:
    """Compares ids, not numbers: one message lost and another one handled twice would look right in a sum."""

    def __init__(self, workers: list[str]) -> None:
        self.published: dict[str, int] = {}
        """Ids of this run, and the number of each reading."""
        self.handled: dict[str, Counter[str]] = {worker: Counter() for worker in workers}
        self.dead: dict[str, Counter[str]] = {worker: Counter() for worker in workers}
        self._lock = threading.Lock()

    def note_published(self, id: str, number: int) -> None:
        """``publish`` has returned this id."""
        with self._lock:
            self.published[id] = number

    def note_handled(self, worker: str, id: str) -> None:
        """A handler has come to its end."""
        with self._lock:
            self.handled[worker][id] += 1

    def note_dead(self, worker: str, id: str) -> None:
        """A dead letter was read."""
        with self._lock:
            if worker in self.dead:
                self.dead[worker][id] += 1

    def missing(self) -> int:
        """How many outcomes are still to come."""
        with self._lock:
            return sum(len(self.published.keys() - self._outcomes(worker).keys()) for worker in self.handled)

    def _outcomes(self, worker: str) -> Counter[str]:
        return self.handled[worker] + self.dead[worker]

    def sums(self) -> tuple[list[str], bool]:
        """The sums as lines, and whether every message has exactly one outcome at each worker."""
        with self._lock:
            published = self.published.keys()
            lines = [f"published: {len(published)}"]
            complete = bool(published)
            for worker, handled in self.handled.items():
                outcomes = self._outcomes(worker)
                lost = published - outcomes.keys()
                repeated = [id for id in published & outcomes.keys() if outcomes[id] > 1]
                earlier = len(outcomes.keys() - published)
                complete = complete and not lost and not repeated
                lines.append(
                    f"{worker}: {len(published & handled.keys())} handled + "
                    f"{len(published & self.dead[worker].keys())} dead letters, "
                    f"{len(lost)} lost, {len(repeated)} twice"
                    + (f", and {earlier} from an earlier run" if earlier else "")
                )
        return lines, complete
