"""Which file system a path is on, and how that is mounted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of ``/proc/self/mountinfo``."""

    point: Path
    kind: str
    """``ext4``, ``tmpfs``, ``fuse.sshfs``."""
    source: str
    """The device, or what the file system calls its source."""
    options: frozenset[str]
    """Of this mount and of the file system: ``ro``, ``noexec``, ``nobarrier``."""


def mount_of(path: Path) -> Mount | None:
    """The mount that holds a path; None where the system does not tell.

    By the longest path, not by the device's number: that of a btrfs subvolume stands in no line.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = path.resolve()
    found: Mount | None = None
    for mount in map(_parse, lines):
        # Of two at one place the later one is seen.
        if path.is_relative_to(mount.point) and (found is None or len(mount.point.parts) >= len(found.point.parts)):
            found = mount
    return found


def _parse(line: str) -> Mount:
    fields, _, rest = line.partition(" - ")
    _, _, _, _, point, options, *_ = fields.split(" ")
    kind, source, super_options = rest.split(" ", 2)
    return Mount(Path(_plain(point)), kind, _plain(source), frozenset((*options.split(","), *super_options.split(","))))


def _plain(text: str) -> str:
    """The kernel writes blanks, tabs, line ends and backslashes in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
