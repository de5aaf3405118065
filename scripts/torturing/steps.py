"""The named steps of a writer at which a kill can meet it, see `keyop.storage.disk`."""

from __future__ import annotations

import re
from pathlib import Path

_KEYOP = Path(__file__).resolve().parents[2] / "keyop"

STEPS = {
    "frame.written": 60,
    "frame.synced": 30,
    "applied": 60,
    "settled": 60,
    "segment.created": 20,
    "segment.written": 60,
    "segment.rolled": 20,
    "journal.switched": 3,
    "checkpoint.segments_synced": 3,
    "checkpoint.synced": 3,
    "free.zeroed": 3,
    "free.synced": 3,
    "checkpoint.freed": 3,
    "segment.removed": 8,
}
"""Steps of a writer at work, and at the how manieth time at most it is killed there."""

RECOVERY_STEPS = {
    "recovery.journal_synced": 2,
    "recovery.written": 3,
    "recovery.applied": 1,
    "recovery.offsets_synced": 1,
    "recovery.zeroed": 2,
    "recovery.freed": 1,
}
"""The same for a writer that starts."""

UNAPPLIED_STEPS = {"frame.written": 30, "frame.synced": 30}
"""After a death here the recovery has something to write."""

FIRST_STEPS = {"offset.drafted": 4, "segment.created": 2, "segment.written": 2, "frame.written": 9}
"""Steps of the first writer of a directory: some files are made only once."""

DELETION_STEPS = ("deletion.put_away", "deletion.removed")
"""No channel is deleted here: a kill at these is what ``tests/test_channel_delete.py`` tries."""


def steps_in_the_code() -> set[str]:
    """Every step that keyop names."""
    found = re.compile(r'disk\.step\("([a-z_.]+)"\)')
    return {name for path in _KEYOP.rglob("*.py") for name in found.findall(path.read_text())}
