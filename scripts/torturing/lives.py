"""Each function here is the whole life of one process, forked from the nursery."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from keyop.errors import WriterBusy, WriterUnavailable
from keyop.inspection import at_rest
from keyop.ipc import lease, port
from keyop.maintenance.dead_letter_office import DeadLetterOffice
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.writer import process as writer_process
from keyop.writer import retention
from keyop.writer.attached import AttachedPort
from keyop.writer.census import Census
from keyop.writer.cursor import Subscriber as Subscribed
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from torturing import putting_back
from torturing.orders import CLOSE_TIMEOUT_S
from torturing.publishing import Publisher
from torturing.subscribing import Subscriber
from torturing.workload import Assignment


def publisher(assignment: Assignment) -> None:
    """Publishes until SIGTERM, or as often as the plan says."""
    Publisher(assignment).run()


def plain(assignment: Assignment) -> None:
    """Handles ``in``."""
    _make_flaw(assignment)
    Subscriber(assignment, ["plain"]).run()


def chain(assignment: Assignment) -> None:
    """Passes ``in`` on, exactly once."""
    Subscriber(assignment, ["chain"]).run()


def end(assignment: Assignment) -> None:
    """Handles ``out`` and ``other``."""
    Subscriber(assignment, ["end", "watcher"]).run()


def part(assignment: Assignment) -> None:
    """Handles its share of ``other``."""
    Subscriber(assignment, ["shared"]).run()


def drainer(assignment: Assignment) -> None:
    """All subscriptions in one process: it leaves when everything is handled."""
    subscriber = Subscriber(assignment, list(assignment.plan.subscriptions))
    messenger = subscriber.attach()
    subscriber.drain(messenger)
    messenger.close(CLOSE_TIMEOUT_S)


def checkpoint(assignment: Assignment) -> None:
    """What ``keyop checkpoint`` does. It may fail: its writer may be killed."""
    try:
        at_rest.checkpoint(assignment.plan.settings(assignment.data_dir), 30.0)
    except (WriterUnavailable, WriterBusy) as error:
        assignment.notebook().note("checkpoint failed", text=str(error))


def replay(assignment: Assignment) -> None:
    """What ``keyop dead-letter replay`` does. It may fail, too."""
    _make_flaw(assignment)
    putting_back.replay(assignment)


def writer(assignment: Assignment) -> int:
    """A writer as attached processes start it, but from a process that has imported everything already."""
    if assignment.crash_at:
        # Looked at when the module was imported, long ago.
        os.environ["KEYOP_CRASH_AT"] = assignment.crash_at
        disk.step = disk._crash_step
    _make_flaw(assignment)
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


def _make_flaw(assignment: Assignment) -> None:
    if assignment.plan.flaw:
        FLAWS[assignment.plan.flaw].make()


def _forget_rings() -> None:
    AttachedPort.take_over = lambda *_: False  # type: ignore[method-assign]


def _leave_rings() -> None:
    sweep = Census.sweep_orphans

    def sweep_all(census: Census) -> None:
        for path in census._run_dir.glob(f"{lease.PORT_PREFIX}*"):
            if lease.remove_fallen(path):
                port.remove(census._identity, path.name.removeprefix(lease.PORT_PREFIX))
        sweep(census)

    Census.sweep_orphans = sweep_all  # type: ignore[method-assign]


def _greatest_part() -> None:
    def divide(cursors: Cursors, subscriber: Subscribed, count: int) -> Subscribed:
        greatest = max(subscriber.cursors, key=lambda cursor: cursor.planned)
        for cursor in subscriber.cursors:
            cursor.planned = cursor.offset = greatest.planned
        return divide_at_least(cursors, subscriber, count)

    divide_at_least = Cursors.divide
    Cursors.divide = divide  # type: ignore[method-assign]


def _forget_marks() -> None:
    DeadLetterOffice._mark = lambda *_: b""  # type: ignore[method-assign]


class Flaw(NamedTuple):
    """Something that a writer, or a command, does wrong on purpose, so that one sees the rig find it."""

    make: Callable[[], None]
    costs: str
    """What kind of violation has to be found."""
    needs: dict[str, Any] = {}  # noqa: RUF012  (nobody changes it)
    """What a plan has to say, or it does not show."""


FLAWS = {
    # After a recovery it takes what the frames hold from the rings again.
    "forget rings": Flaw(_forget_rings, "doubled"),
    # When it starts it removes the ports of dead processes, whatever their rings hold.
    "leave rings": Flaw(_leave_rings, "lost"),
    # Where parts are divided anew, all go on from where the first of them was, not the last.
    "greatest part": Flaw(_greatest_part, "unhandled", {"parts": 2}),
    # Dead letters are put back without a mark: the next time again.
    "forget marks": Flaw(_forget_marks, "doubled", {"replays": True}),
}

ROLES: dict[str, Callable[[Assignment], int | None]] = {
    role.__name__: role for role in (publisher, plain, chain, end, part, drainer, checkpoint, replay, writer)
}
