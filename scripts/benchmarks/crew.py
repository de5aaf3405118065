"""Real processes that start their work at the same moment and hand back what they measured through pipes."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import TypeVar

T = TypeVar("T")

# Forked, not spawned: 64 interpreters that import everything anew would take longer than what they measure. The parent
# has no threads and never attaches to anything.
_FORK = multiprocessing.get_context("fork")

Start = Callable[[], None]


class CrewError(RuntimeError):
    """A worker raised, died, or did not finish in time."""


def run_crew(
    size: int, work: Callable[[int, Start], T], timeout_s: float = 180.0, when_ready: Callable[[], object] | None = None
) -> list[T]:
    """Run ``work(rank, start)`` in ``size`` processes. Each makes itself ready, calls ``start()``, which returns when
    all have (and ``when_ready`` has been called), then measures. Returns what they returned, by rank."""
    pipes = [_FORK.Pipe() for _ in range(size)]
    workers = [
        _FORK.Process(target=_worker, args=(rank, work, theirs), daemon=True) for rank, (_, theirs) in enumerate(pipes)
    ]
    ours = [pipe for pipe, _ in pipes]
    try:
        for worker, (_, theirs) in zip(workers, pipes, strict=True):
            worker.start()
            theirs.close()
        deadline = time.monotonic() + timeout_s
        _collect(ours, deadline)
        if when_ready is not None:
            when_ready()
        for pipe in ours:
            pipe.send("go")
        results: list[T] = _collect(ours, deadline)
        for worker in workers:
            worker.join(timeout=10)
        return results
    finally:
        for worker in workers:
            if worker.pid is not None and worker.is_alive():
                worker.kill()
                worker.join()
        for pipe in ours:
            pipe.close()


def _collect(pipes: list[Connection], deadline: float) -> list[T]:
    answers: dict[int, T] = {}
    open_pipes = {id(pipe): rank for rank, pipe in enumerate(pipes)}
    while len(answers) < len(pipes):
        waiting = [pipe for pipe in pipes if open_pipes[id(pipe)] not in answers]
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise CrewError(f"{len(waiting)} of {len(pipes)} workers did not finish in time")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                fine, answer = pipe.recv()
            except EOFError:
                raise CrewError("a worker died") from None
            if not fine:
                raise CrewError(answer)
            answers[open_pipes[id(pipe)]] = answer
    return [answers[rank] for rank in range(len(pipes))]


def _worker(rank: int, work: Callable[[int, Start], T], pipe: Connection) -> None:
    def start() -> None:
        pipe.send((True, None))
        pipe.recv()

    try:
        pipe.send((True, work(rank, start)))
    except BaseException:
        pipe.send((False, traceback.format_exc(limit=-3)))
