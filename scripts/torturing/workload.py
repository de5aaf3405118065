"""What a crew is to do, and what the messages say.

Channels: publishers write to ``in`` and ``other``. ``plain`` handles ``in``; ``chain`` passes each message of it on,
exactly once, to ``out`` (every fifth to ``copy`` as well). ``end`` handles ``out``, ``watcher`` ``other``. Some
messages make ``plain`` or ``chain`` fail for good: they go to ``in.dead-letter``. In some plans two processes share the
id ``shared``, in one, two or three parts: each life of a publisher is a key, so its messages stay with one part.

A publisher counts what it publishes from 0 in each of its lives, over both channels. So (publisher, life, number) names
a message, and the payload says it, with a checksum of its bulk and, where several stand or fall together, their number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any
from zlib import crc32

from keyop.configuration.settings import IpcSettings, Settings, StorageSettings, WriterSettings
from torturing.ledger import Notebook

TYPE = "torture"
SUBSCRIPTIONS = {"plain": "in", "chain": "in", "end": "out", "watcher": "other", "shared": "other"}
"""Subscriber's id → channel."""

SHARERS = ("part1", "part2")
"""The processes that share ``shared``; of three parts the first one has two, of one it has all."""


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
    parts: int = 0
    """Into how many parts ``shared`` is divided at first, and at the end; 0: there is no such subscriber."""
    replays: bool = False
    """Whether what ``plain`` gave up is put back now and then, and all of it at the end."""
    flaw: str = ""
    """For a control: what the writers do wrong on purpose, see `torturing.lives.FLAWS`."""

    @property
    def strict(self) -> bool:
        """Whether publish returns after the sync."""
        return self.sync_interval_ms == 0

    @property
    def subscriptions(self) -> dict[str, str]:
        """Those of `SUBSCRIPTIONS` that there are."""
        return {id: channel for id, channel in SUBSCRIPTIONS.items() if id != "shared" or self.parts}

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
    parts: int = 0
    """A sharer's: into how many parts the id is divided now."""
    division: int = 0
    """How often it was divided anew before. Messages may come again by that."""

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
    return {**said, "bulk": bulk, "crc": crc32(bulk.encode())}


def failing(number: int) -> str:
    """Which subscriber fails for good with the messages of this number: ``plain``, ``chain`` or none."""
    return "plain" if number % 53 == 52 else "chain" if number % 59 == 58 else ""


def is_whole(said: dict[str, Any]) -> bool:
    """Whether the bulk is what was published."""
    return isinstance(said.get("bulk"), str) and crc32(said["bulk"].encode()) == said.get("crc")
