"""What the processes of a crew do. Each function here is the whole life of one process.

Channels: publishers write to ``in`` and ``other``. ``plain`` handles ``in``; ``chain`` passes each message of it on,
exactly once, to ``out`` (every fifth to ``copy`` as well). ``end`` handles ``out``, ``watcher`` ``other``. Some
messages make ``plain`` or ``chain`` fail for good: they go to ``in.dead-letter``.

A publisher counts what it publishes from 0 in each of its lives, over both channels. So (publisher, life, number) names
a message, and the payload says it, with a checksum of its bulk and, where several stand or fall together, their number.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any
from zlib import crc32

from keyop import Message, Messenger
from keyop.configuration.settings import IpcSettings, Settings, StorageSettings, WriterSettings
from keyop.errors import SubscriberBusy
from keyop.inspection import at_rest
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.writer import process as writer_process
from keyop.writer import retention
from keyop.writer.log import Log
from torturing.ledger import Notebook

TYPE = "torture"
SUBSCRIPTIONS = {"plain": "in", "chain": "in", "end": "out", "watcher": "other"}
"""Subscriber's id → channel."""
MAX_RETRIES = 3
_BACKOFF_S = (0.001, 0.01)
_SPILL_BYTES = 128 * 1024
_DRAIN_S = 60.0
_COMPLAINTS = ("damaged", "refused", "the writer ended (exit code")
_PROVOKED = "this message always fails here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a crew works, the same for all of its processes."""

    sync_interval_ms: int = 0
    """0 is strict."""
    segment_mb: float = 0.004
    """Tiny: segments roll all the time."""
    journal_mb: float = 0.0625
    """Tiny: the journal's files turn all the time. 1 MiB is what they begin with; more lets them grow."""
    compaction: bool = False
    """Whether segments go that all subscribers have consumed. Every subscriber is there from the beginning."""
    publishers: int = 2
    pause_s: float = 0.001
    """Between two publishes of one process."""
    big: float = 0.01
    """The share of publishes that are too long for a ring."""
    limit: int = 0
    """After so many publishes a publisher ends by itself; 0: when it is told to."""
    idle_exit_s: float = 5.0

    @property
    def strict(self) -> bool:
        """Whether publish returns after the sync."""
        return self.sync_interval_ms == 0

    def settings(self, data_dir: str) -> Settings:
        """For a process that attaches, and for the writer that it may have to start."""
        storage = StorageSettings(
            data_dir=data_dir,
            sync_interval_ms=self.sync_interval_ms,
            compaction_threshold_mb=self.segment_mb,  # type: ignore[arg-type]
            dead_letter_compaction_threshold_mb=self.segment_mb,  # type: ignore[arg-type]
            journal_mb=self.journal_mb,  # type: ignore[arg-type]
            max_files=0,
        )
        return Settings(storage=storage, writer=WriterSettings(idle_exit=self.idle_exit_s), ipc=IpcSettings(spin_us=0))

    def as_dict(self) -> dict[str, Any]:
        """For another process, and to be kept beside a violation."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one process is to be."""

    role: str
    who: str
    life: int
    seed: str
    data_dir: str
    ledger: str
    mark: str | None = None
    plan: Plan = field(default_factory=Plan)
    crash_at: str = ""
    """A writer's: ``frame.written:3``."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Assignment:
        """The reverse of `dataclasses.asdict`."""
        return cls(**{**values, "plan": Plan(**values["plan"])})

    def notebook(self) -> Notebook:
        """Where this process writes down what it was told."""
        return Notebook(self.ledger, self.who, self.life, self.mark)


def payload(who: str, life: int, number: int, bulk: str, **more: object) -> dict[str, Any]:
    """What is published; ``more`` are ``group`` and the like."""
    said: dict[str, Any] = {"from": who, "life": life, "n": number, **more}
    if number % 53 == 52:
        said["fails"] = "plain"
    elif number % 59 == 58:
        said["fails"] = "chain"
    return {**said, "bulk": bulk, "crc": crc32(bulk.encode())}


def is_whole(said: dict[str, Any]) -> bool:
    """Whether the bulk is what was published."""
    return isinstance(said.get("bulk"), str) and crc32(said["bulk"].encode()) == said.get("crc")


# ---- publishers


class _Publisher:
    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._notes = assignment.notebook()
        self._chance = random.Random(f"{assignment.seed}/{assignment.who}/{assignment.life}")
        self._next = 0
        self._told = _Told()

    def run(self) -> None:
        plan = self._a.plan
        settings = plan.settings(self._a.data_dir)
        messenger = Messenger(settings, name=self._a.who, logger=_complaints(self._notes))
        self._notes.note("ready")
        published = 0
        while not self._told.to_leave.is_set() and (not plan.limit or published < plan.limit):
            self._one(messenger)
            published += 1
            if plan.pause_s:
                time.sleep(plan.pause_s)
        messenger.close(_DRAIN_S)
        self._notes.note("closed")

    def _one(self, messenger: Messenger) -> None:
        chance = self._chance
        channel = "in" if chance.random() < 0.7 else "other"
        sync = chance.random() < 0.1
        kind = chance.random()
        if kind < self._a.plan.big:
            self._single(messenger, channel, sync, "B" * (_SPILL_BYTES + chance.randrange(80_000)))
        elif kind < 0.15:
            self._batch(messenger, channel, sync)
        elif kind < 0.3:
            self._atomic(messenger)
        else:
            self._single(messenger, channel, sync, "x" * chance.randrange(300))

    def _single(self, messenger: Messenger, channel: str, sync: bool, bulk: str) -> None:
        said = self._say(bulk, sync=sync)
        messenger.publish(channel, said, payload_type=TYPE, sync=sync or None)
        self._notes.note("published", channel=channel, ns=[said["n"]], sync=sync)

    def _batch(self, messenger: Messenger, channel: str, sync: bool) -> None:
        """Mostly short; now and then so long that it spills and is split over many segments."""
        size = self._chance.randrange(2, 9)
        bulk = "y" * self._chance.randrange(300)
        if self._chance.random() < self._a.plan.big:
            size, bulk = 40, "Y" * 4000
        group = {"first": self._next, "size": size, "kind": "batch"}
        said = [self._say(bulk, sync=sync, group=group) for _ in range(size)]
        messenger.publish_batch(channel, said, payload_type=TYPE, sync=sync or None)
        self._notes.note("published", channel=channel, ns=[each["n"] for each in said], sync=sync)

    def _atomic(self, messenger: Messenger) -> None:
        channels = ["in", "other", *self._chance.choices(["in", "other"], k=self._chance.randrange(3))]
        self._chance.shuffle(channels)
        group = {"first": self._next, "size": len(channels), "kind": "atomic"}
        parts = []
        with messenger.atomic() as transaction:
            for channel in channels:
                said = self._say("a" * self._chance.randrange(200), group=group)
                transaction.publish(channel, said, payload_type=TYPE)
                parts.append([channel, said["n"]])
        self._notes.note("atomic", parts=parts, sync=True)

    def _say(self, bulk: str, **more: object) -> dict[str, Any]:
        number = self._next
        self._next += 1
        return payload(self._a.who, self._a.life, number, bulk, **more)


# ---- subscribers


class _Subscriber:
    """One process with some of the subscriptions."""

    def __init__(self, assignment: Assignment, ids: list[str]) -> None:
        self._a = assignment
        self._ids = ids
        self._notes = assignment.notebook()
        self._told = _Told()

    def run(self) -> None:
        messenger = self.attach()
        self._notes.note("ready")
        self._told.either.wait()
        if self._told.to_drain.is_set():
            self.drain(messenger)
        messenger.close(_DRAIN_S)
        self._notes.note("closed")

    def attach(self) -> Messenger:
        settings = self._a.plan.settings(self._a.data_dir)
        self._messenger = Messenger(settings, name=self._a.who, logger=_complaints(self._notes))
        for id in self._ids:
            handle = self._pass_on if id == "chain" else self._handler(id)
            self._subscribe(id, handle)
        return self._messenger

    def drain(self, messenger: Messenger) -> None:
        """Twice: what the chain passes on is published meanwhile."""
        for _ in range(2):
            if not messenger.drain(_DRAIN_S):
                raise TimeoutError(f"{', '.join(self._ids)}: not drained in {_DRAIN_S:.0f} s: {messenger.stats()}")
        self._notes.note("drained")

    def _subscribe(self, id: str, handle: Callable[[Message[Any]], None]) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self._messenger.subscribe(
                    SUBSCRIPTIONS[id],
                    id,
                    handle,
                    start="earliest",
                    exactly_once=id == "chain",
                    max_retries=MAX_RETRIES,
                    retry_backoff=_BACKOFF_S,
                )
                return
            except SubscriberBusy:
                # The predecessor was killed, and the writer has not seen it yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _handler(self, id: str) -> Callable[[Message[Any]], None]:
        channel = SUBSCRIPTIONS[id]

        def handle(message: Message[Any]) -> None:
            said = message.payload
            what = "handled"
            if said.get("fails") == id:
                what = "failed"
            elif not is_whole(said):
                what = "garbled"
            name = [said.get("from"), said.get("life"), said.get("n")]
            self._notes.note(what, by=id, channel=channel, of=name, at=message.offset, attempt=message.attempt)
            if what == "failed":
                raise ValueError(_PROVOKED)

        return handle

    def _pass_on(self, message: Message[Any]) -> None:
        said = message.payload
        passed = {"from": said["from"], "life": said["life"], "n": said["n"], "bulk": "p", "crc": crc32(b"p")}
        self._messenger.publish("out", passed, payload_type=TYPE)
        if said["n"] % 5 == 0:
            self._messenger.publish("copy", passed, payload_type=TYPE)
        if said.get("fails") == "chain":
            raise ValueError(f"{_PROVOKED}: what was published goes with it")


class _Complaints(logging.Handler):
    """What the library logs goes to stderr, but for what this workload provokes; the worst goes into the ledger."""

    def __init__(self, notes: Notebook) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        text = record.getMessage()
        if _PROVOKED in text or "the process ended during attempt" in text:
            return
        os.write(2, f"{self._notes.who}: {text}\n".encode())
        if any(word in text for word in _COMPLAINTS) and "exit code 69" not in text:
            self._notes.note("complained", text=text)


def _complaints(notes: Notebook) -> logging.Logger:
    logger = logging.getLogger("torture")
    logger.propagate = False
    logger.addHandler(_Complaints(notes))
    return logger


class _Told:
    """SIGTERM: leave. SIGUSR1: leave when all is handled."""

    def __init__(self) -> None:
        self.to_leave = threading.Event()
        self.to_drain = threading.Event()
        self.either = _AnyOf()
        signal.signal(signal.SIGTERM, lambda *_: (self.to_leave.set(), self.either.set()))
        signal.signal(signal.SIGUSR1, lambda *_: (self.to_drain.set(), self.either.set()))


class _AnyOf:
    """What the main thread waits on; a pipe, because a signal handler must not take a lock that it may hold already."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def set(self) -> None:
        os.write(self._writing, b"!")

    def wait(self) -> None:
        os.read(self._reading, 1)


# ---- the roles


def publisher(assignment: Assignment) -> None:
    """Publishes until SIGTERM, or as often as the plan says."""
    _Publisher(assignment).run()


def plain(assignment: Assignment) -> None:
    """Handles ``in``."""
    _Subscriber(assignment, ["plain"]).run()


def chain(assignment: Assignment) -> None:
    """Passes ``in`` on, exactly once."""
    _Subscriber(assignment, ["chain"]).run()


def end(assignment: Assignment) -> None:
    """Handles ``out`` and ``other``."""
    _Subscriber(assignment, ["end", "watcher"]).run()


def drainer(assignment: Assignment) -> None:
    """All subscriptions in one process: it leaves when everything is handled."""
    subscriber = _Subscriber(assignment, list(SUBSCRIPTIONS))
    messenger = subscriber.attach()
    subscriber.drain(messenger)
    messenger.close(_DRAIN_S)


def checkpoint(assignment: Assignment) -> None:
    """What ``keyop checkpoint`` does."""
    at_rest.checkpoint(assignment.plan.settings(assignment.data_dir), 30.0)


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
