"""What dead processes have left in /dev/shm.

Of a directory that is still there it is no rubbish: it holds what they had published, and the next writer takes it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from keyop.doctor.finding import Finding
from keyop.doctor.shared_memory import PLACE
from keyop.doctor.space import format_size
from keyop.doctor.subject import Subject
from keyop.inspection import presence
from keyop.ipc import layout
from keyop.ipc.names import PREFIX, DirectoryIdentity

_NAME = PREFIX.removeprefix("/")
_SEMAPHORE = "sem."
_HEADER = struct.Struct(f"={layout.PID + 1}I")
_MAGICS = (layout.BOARD_MAGIC, layout.PORT_MAGIC, layout.SLOTS_MAGIC)


@dataclass(slots=True)
class Group:
    """The objects of one data directory."""

    bytes: int = 0
    names: list[str] = field(default_factory=list)
    lives: bool = False
    """Whether a process of one of them lives, or it cannot be known."""


def check(subject: Subject) -> Iterator[Finding]:
    """Those of this directory, and those of others."""
    own = _key(subject)
    yield from _of_this_directory(subject)
    groups = groups_in(PLACE)
    dead = {key: group for key, group in groups.items() if key != own and not group.lives}
    if not dead:
        yield Finding("leftovers", "ok", f"no directory but those in use has anything in {PLACE}")
        return
    count, size = sum(len(group.names) for group in dead.values()), sum(group.bytes for group in dead.values())
    words = "1 data directory" if len(dead) == 1 else f"{len(dead):,} data directories"
    text = f"{PLACE} holds {count:,} objects ({format_size(size)}) of {words} whose processes are gone"
    way = (
        "the next start in such a directory takes what they hold; where the directory itself is gone for good: "
        f"rm {' '.join(f'{PLACE}/*{_NAME}{key}-*' for key in sorted(dead)[:3])}{' ...' if len(dead) > 3 else ''}"
    )
    yield Finding("leftovers", "note", text, way, {"objects": count, "bytes": size, "keys": sorted(dead)})


def _of_this_directory(subject: Subject) -> Iterator[Finding]:
    directory = subject.directory
    if directory is None:
        return
    dead = [process for process in presence.attached(directory) if not process.alive]
    if not dead:
        return
    values = {"dead_processes": len(dead)}
    said = "1 process has" if len(dead) == 1 else f"{len(dead):,} processes have"
    if presence.writer_lives(directory):
        yield Finding("leftovers", "ok", f"{said} ended without leaving; the writer takes what they hold", "", values)
        return
    way = f"start any keyop program there, or: keyop recover -d {directory.path}"
    text = f"{said} ended without leaving, and no writer has taken what they had published"
    yield Finding("leftovers", "note", text, way, values)


def _key(subject: Subject) -> str:
    directory = subject.directory
    try:
        if directory is None or not (directory.run / "id").exists():
            return ""
        return DirectoryIdentity(directory.run).key
    except OSError:
        return ""


def groups_in(place: Path) -> dict[str, Group]:
    """The objects by the key of their directory."""
    groups: dict[str, Group] = {}
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError:
        return groups
    for entry in entries:
        name = entry.name.removeprefix(_SEMAPHORE)
        if not name.startswith(_NAME):
            continue
        try:
            size = entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue  # gone meanwhile
        group = groups.setdefault(name.removeprefix(_NAME).partition("-")[0], Group())
        group.names.append(entry.name)
        group.bytes += size
        if not entry.name.startswith(_SEMAPHORE):
            group.lives = group.lives or _lives(Path(entry.path))
    return groups


def _lives(path: Path) -> bool:
    """Whether the process that made it lives. In another container's numbers it means nothing, so this only informs."""
    try:
        with path.open("rb") as file:
            words = _HEADER.unpack(file.read(_HEADER.size))
        if words[layout.MAGIC] not in _MAGICS:
            return True  # being made
        return _is_running(words[layout.PID])
    except (OSError, struct.error):
        return True  # another user's, or gone meanwhile


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # one that has ended and whose parent has not looked
