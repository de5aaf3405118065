"""One directory: our programs, the Go program, ours again, … and in the end all is handled and looked at."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import JournalContents
from torturing.shared_memory import sweep_shared_memory
from torturing.visits.go_program import GoProgram, Written
from torturing.visits.habits import HABITS, Visit
from torturing.visits.shift import CHANNELS, Ledger, work

STATES = ("rest", "kill", "reboot", "cut")
"""What the Go program finds: a clean stop; killed processes, with their shared memory or without it; and, after a power
cut, segments that are behind the journal."""

BESIDE = "beside"
"""Our writer runs. This is forbidden, and can go wrong; appending while it is idle must not."""

_MESSAGES = 24
_RELEASES = ((1, 4), (1, 24))


@dataclass(slots=True)
class Story:
    """What happened, for the checker and for people."""

    written: list[Written] = field(default_factory=list)
    """By the Go program."""
    removed: list[bytes] = field(default_factory=list)
    """Lines in segments that it removed."""
    handled: list[tuple[str, bytes]] = field(default_factory=list)
    """(subscriber's id, line) that it handled in the place of ours."""
    overlapped: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)
    """What our writers said."""
    steps: list[str] = field(default_factory=list)


def live(data_dir: Path, ledger: Ledger, seed: str, habit: str, state: str, visits: int) -> Story:
    """Live through it. Raises `WriterSilent`, `TimeoutError`, `RuntimeError` where a process does not do its part."""
    chance = random.Random(seed)
    story = Story()
    for number in range(visits):
        words = (data_dir, ledger, number, _MESSAGES, f"{seed} {number}")
        if state == BESIDE:
            story.log += work(*words, end="clean", meanwhile=lambda: visit(data_dir, habit, state, story, chance))
            continue
        story.log += work(*words, end="clean" if state == "rest" else "kill")
        if state in ("reboot", "cut"):
            sweep_shared_memory(data_dir)
        visit(data_dir, habit, state, story, chance)
    story.log += work(data_dir, ledger, visits, _MESSAGES, f"{seed} end", end="clean")
    return story


def visit(data_dir: Path, habit: str, state: str, story: Story, chance: random.Random) -> None:
    """Have the Go program come, and note what it did."""
    # What a power cut takes from a segment is the journal's, but not if that segment is removed then.
    whole = Visit(GoProgram(data_dir, _RELEASES[-1], chance, 0), chance)
    lines = {channel: whole.lines(channel) for channel in CHANNELS}
    if state == "cut":
        cut(data_dir, chance)
    go = GoProgram(data_dir, chance.choice(_RELEASES), chance, len(story.written))
    guest = Visit(go, chance)
    HABITS[habit](guest)
    story.steps.append(f"{state}; Go {go.release[0]}.{go.release[1]}: {habit}")
    story.written += go.written
    story.removed += go.removed
    for channel, first in go.first.items():
        story.removed += [line for offset, line in lines.get(channel, []) if offset < first]
    story.handled += guest.handled
    story.overlapped |= go.overlapped


def cut(data_dir: Path, chance: random.Random) -> None:
    """Take from the segments some of what the journal holds: a power cut may."""
    directory = DataDirectory(data_dir)
    held: dict[str, int] = {}
    for name in NAMES:
        for frame in JournalContents(directory.journal / name).frames:
            for item in frame.entries():
                if item.kind == entry.APPEND:
                    channel = item.channel.decode()
                    held[channel] = min(item.value, held.get(channel, item.value))
    for channel, first in held.items():
        paths = sorted(directory.channel(channel).glob("*.jsonl"))
        end = int(paths[-1].stem) + paths[-1].stat().st_size
        left = chance.choice((first, end, chance.randint(min(first, end), end)))
        for path in paths:
            size = path.stat().st_size
            os.truncate(path, min(size, max(0, left - int(path.stem))))
