"""What the writer does beside its commits: checkpoints, timed syncs, the retention. Each goes on a step at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


class Threads:
    """Those that are under way, by what they do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: dict[str, Iterator[str]] = {}
        # Whether one of them, or another process, is in the middle of something: then it is nobody else's turn.
        self.busy = False

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self, name: str, job: Iterator[str]) -> None:
        """Have something done beside the commits, unless the same is under way."""
        if name not in self._jobs:
            self._jobs[name] = job

    def finish(self, name: str) -> None:
        """Wait until it is done."""
        job = self._jobs.get(name)
        while job is not None and self._jobs.get(name) is job:
            self._advance(name)

    def finish_all(self) -> None:
        """Wait until nothing is under way."""
        for name in list(self._jobs):
            self.finish(name)

    def start_flush(self) -> None:
        """In periodic mode: frames were written that have to be synced soon."""
        self.start("timer", iter(["timer"] * self._world.chance.choice((1, 3, 12))))

    def one_goes_on(self) -> None:
        """Any of them comes a step further."""
        if self._jobs:
            self._advance(self._world.chance.choice(list(self._jobs)))

    def die(self) -> None:
        """The writer is no more."""
        self._jobs.clear()
        self.busy = False

    def _advance(self, name: str) -> None:
        job = self._jobs[name]
        busy, self.busy = self.busy, True
        try:
            self._world.step(next(job))
        except StopIteration:
            del self._jobs[name]
            if name == "timer":
                self.start("flush", self._world.writer.journal.syncing())
        finally:
            self.busy = busy
