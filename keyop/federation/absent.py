"""Positions of peers that are away: how far behind they are, and which are forgotten because they do not come back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import transaction
from keyop.protocol import entry
from keyop.storage.offsets import OFFSET_SUFFIX, read_offset
from keyop.storage.wall_clock import CLOCK_IS_SET_S

Positions = dict[str, int]
"""Offsets by channel."""


def all_positions(attachment: Attachment, prefix: str) -> dict[str, Positions]:
    """What the offset files say, by id. Blocks."""
    found: dict[str, Positions] = {}
    for path in _files(attachment, f"{prefix}*"):
        parsed = read_offset(path)
        if parsed is not None:
            found.setdefault(_id(path), {})[path.parent.name] = parsed.value
    return found


class Behind:
    """How much of its channels a peer that is away has not acknowledged."""

    def __init__(self, attachment: Attachment, positions: Positions) -> None:
        self._attachment = attachment
        self.positions = positions
        """Where it stands."""

    def bytes(self) -> int:
        """In all channels together."""
        end = self._attachment.channel_end
        return sum(max(0, end(channel) - offset) for channel, offset in self.positions.items())


def left_before(attachment: Attachment, prefix: str, time_s: float) -> list[tuple[str, str]]:
    """(channel, id) of positions that were last used before a time, in seconds since 1970. Blocks.

    What was used while the clock was not set yet counts as used now.
    """
    found = []
    for path in _files(attachment, f"{prefix}*"):
        mtime_s = _mtime(path)
        if mtime_s < CLOCK_IS_SET_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        elif mtime_s <= time_s:
            found.append((path.parent.name, _id(path)))
    return found


def not_of(attachment: Attachment, prefix: str, ids: Collection[str]) -> list[tuple[str, str]]:
    """(channel, id) of all positions but these. Blocks."""
    return [(path.parent.name, _id(path)) for path in _files(attachment, f"{prefix}*") if _id(path) not in ids]


def forget(attachment: Attachment, channel: str, id: str, deadline: float) -> None:
    """Delete a position. Blocks. Raises `KeyopError`, also for a name that is none here."""
    item = entry.encode(entry.FORGET, os.fsencode(channel), os.fsencode(id))
    attachment.transact(transaction(item), channel, deadline)


def is_used(attachment: Attachment, id: str) -> bool:
    """Whether a position of this name is left in any channel. Blocks."""
    return any(True for _ in _files(attachment, id))


def _files(attachment: Attachment, pattern: str) -> Iterator[Path]:
    yield from sorted(attachment.directory.subscribers.glob(f"*/{pattern}{OFFSET_SUFFIX}"))


def _id(path: Path) -> str:
    return path.name.removesuffix(OFFSET_SUFFIX)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")
