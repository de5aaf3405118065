"""Each function here is the whole life of one process, forked from the nursery."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from keyop.errors import WriterBusy, WriterUnavailable
from keyop.inspection import at_rest
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.writer import process as writer_process
from keyop.writer import retention
from keyop.writer.log import Log
from torturing.orders import CLOSE_TIMEOUT_S
from torturing.publishing import Publisher
from torturing.subscribing import Subscriber
from torturing.workload import SUBSCRIPTIONS, Assignment


def publisher(assignment: Assignment) -> None:
    """Publishes until SIGTERM, or as often as the plan says."""
    Publisher(assignment).run()


def plain(assignment: Assignment) -> None:
    """Handles ``in``."""
    Subscriber(assignment, ["plain"]).run()


def chain(assignment: Assignment) -> None:
    """Passes ``in`` on, exactly once."""
    Subscriber(assignment, ["chain"]).run()


def end(assignment: Assignment) -> None:
    """Handles ``out`` and ``other``."""
    Subscriber(assignment, ["end", "watcher"]).run()


def drainer(assignment: Assignment) -> None:
    """All subscriptions in one process: it leaves when everything is handled."""
    subscriber = Subscriber(assignment, list(SUBSCRIPTIONS))
    messenger = subscriber.attach()
    subscriber.drain(messenger)
    messenger.close(CLOSE_TIMEOUT_S)


def checkpoint(assignment: Assignment) -> None:
    """What ``keyop checkpoint`` does. It may fail: its writer may be killed."""
    try:
        at_rest.checkpoint(assignment.plan.settings(assignment.data_dir), 30.0)
    except (WriterUnavailable, WriterBusy) as error:
        assignment.notebook().note("checkpoint failed", text=str(error))


def writer(assignment: Assignment) -> int:
    """A writer as attached processes start it, but from a process that has imported everything already."""
    if assignment.crash_at:
        # Looked at when the module was imported, long ago.
        os.environ["KEYOP_CRASH_AT"] = assignment.crash_at
        disk.step = disk._crash_step
    retention.EVERY_S = 0.2 if assignment.plan.compaction else 1e9
    notes = assignment.notebook()
    began_s = time.monotonic()
    bring_up = writer_process.bring_up

    def timed(*arguments: Any) -> Any:
        committer = bring_up(*arguments)
        notes.note("open", pid=os.getpid(), ms=round((time.monotonic() - began_s) * 1000, 2))
        return committer

    writer_process.bring_up = timed
    os.chdir("/")
    options = WriterOptions.from_settings(assignment.plan.settings(assignment.data_dir))
    return writer_process.run(options, on_demand=True, log=Log("text", "info"))


ROLES: dict[str, Callable[[Assignment], int | None]] = {
    role.__name__: role for role in (publisher, plain, chain, end, drainer, checkpoint, writer)
}
