"""What goes on in a run: the writer's mode, and which kinds of traffic and mishaps there are."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Mode:
    """One combination; its name is what the table and ``--mode`` call it."""

    name: str
    periodic: bool = False
    """Publish returns before the sync."""
    atomic: bool = False
    """Transactions over two channels, and lines of several times the usual length."""
    cursors: bool = False
    """A subscriber whose cursor lies in its slot, with dead letters, cursors set back by command, ids forgotten."""
    exactly_once: bool = False
    """A chain: what the handler publishes and the move of its cursor are one transaction."""
    spill: bool = False
    """Transactions that are handed over in files of their own."""
    foreign: bool = False
    """Another program appends to a channel, between two writers and beside one."""
    rolling: bool = False
    """Segments of a few lines."""
    compaction: bool = False
    """Segments that everybody has consumed are removed."""
    restless: bool = False
    """Checkpoints are asked for all the time."""
    departing: bool = False
    """Subscriptions are closed as soon as they have caught up, and opened again."""
    damage: bool = False
    """Cells of the journal that turn into something else while nobody runs."""
    failing: bool = False
    """Syncs that fail and drop what they should have written."""


_FEATURES = {
    "plain": {},
    "atomic": {"atomic": True},
    "cursors": {"cursors": True},
    "exactly-once": {"exactly_once": True},
    "restless": {"cursors": True, "restless": True},
    "departing": {"cursors": True, "departing": True},
    "spill": {"spill": True, "atomic": True},
    "foreign": {"foreign": True, "cursors": True, "exactly_once": True, "rolling": True},
    "rolling": {"rolling": True, "atomic": True},
    "compaction": {"compaction": True, "rolling": True, "cursors": True, "exactly_once": True},
    "damage": {"damage": True, "atomic": True, "rolling": True},
    "failing": {"failing": True, "atomic": True, "exactly_once": True},
    "together": {
        "atomic": True,
        "cursors": True,
        "exactly_once": True,
        "spill": True,
        "foreign": True,
        "rolling": True,
        "compaction": True,
    },
}

STRICT = {name: Mode(f"strict {name}", **features) for name, features in _FEATURES.items()}
PERIODIC = {
    name: replace(mode, name=mode.name.replace("strict", "periodic"), periodic=True) for name, mode in STRICT.items()
}
MODES = {mode.name: mode for mode in (*STRICT.values(), *PERIODIC.values())}
"""Every mode by its name."""
