"""What the files say of channels and subscribers. Some are looked at in each look, in turn: most stand still."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import ParsedOffset, list_offsets
from keyop.storage.segments import Segment, list_segments, segment_end

_MOST_A_LOOK = 40
# The names are listed again after so many looks, also where the directory says that nothing has changed: its time may
# be that of the look before.
_LIST_EVERY = 10


@dataclass(frozen=True, slots=True)
class ChannelFiles:
    """One channel, when its files were looked at last."""

    exists: bool
    """Whether it has a directory; one that is only subscribed to has none."""
    first_offset: int
    end_offset: int
    bytes: int
    last_write_unix_s: float | None
    offsets: dict[str, ParsedOffset]
    """What its offset files say, by id."""


_UNREAD = ChannelFiles(False, 0, 0, 0, None, {})


class FileWatch:
    """All channels of a directory."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self.channels: dict[str, ChannelFiles] = {}
        """By name."""
        self._stamps: tuple[int, ...] = ()
        self._looks = 0
        self._turn: list[str] = []
        self._troubles: list[str] = []

    def look(self, urgent: Iterable[str] = ()) -> str | None:
        """List the names if need be, look at all new channels, at the urgent ones, and at the next ones in turn.

        What could not be read, as a sentence; a channel that cannot be read stays as it was seen last.
        """
        self._troubles.clear()
        new = self._list()
        for name in [*(new | set(urgent) & self.channels.keys()), *islice(self._next(), _MOST_A_LOOK)]:
            self._read(name)
        return self._troubles[0] if self._troubles else None

    def _next(self) -> Iterable[str]:
        """Each name once, those that come next first."""
        for _ in range(len(self.channels)):
            if not self._turn:
                self._turn = sorted(self.channels, reverse=True)
            name = self._turn.pop()
            if name in self.channels:
                yield name

    def _list(self) -> set[str]:
        """Forget the channels that are gone; the names of new ones."""
        parents = (self._directory.channels, self._directory.subscribers)
        stamps = tuple(map(_changed_ns, parents))
        self._looks += 1
        if stamps == self._stamps and self._looks % _LIST_EVERY:
            return set()
        names: set[str] = set()
        for parent in parents:
            try:
                names.update(_directories(parent))
            except OSError as error:
                self._troubles.append(_sentence(error))
                names |= self.channels.keys()  # nothing is known of who has gone
        for name in self.channels.keys() - names:
            del self.channels[name]
        self._stamps = () if self._troubles else stamps
        return names - self.channels.keys()

    def _read(self, name: str) -> None:
        before = self.channels.get(name, _UNREAD)
        found = before
        try:
            found = _with_segments(found, self._directory.channel(name))
            found = replace(found, offsets=dict(list_offsets(self._directory.offsets(name))))
        except OSError as error:
            self._troubles.append(_sentence(error))
        # The same object for the same content: rows that are made of it are kept.
        self.channels[name] = before if before == found else found


def _with_segments(files: ChannelFiles, path: Path) -> ChannelFiles:
    segments, _ = list_segments(path)
    total = 0
    newest_s = 0.0
    for segment in segments:
        try:
            status = segment.path.stat()
        except FileNotFoundError:
            continue
        total += status.st_size
        newest_s = max(newest_s, status.st_mtime)
    return replace(
        files,
        exists=bool(segments) or path.is_dir(),
        first_offset=segments[0].start if segments else 0,
        end_offset=_end(segments),
        bytes=total,
        last_write_unix_s=round(newest_s, 3) if newest_s else None,
    )


def _sentence(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def _end(segments: list[Segment]) -> int:
    try:
        return segment_end(segments[-1]) if segments else 0
    except FileNotFoundError:
        return segments[-1].start  # removed in between, with its channel or because a newer one is there


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _directories(parent: Path) -> list[str]:
    """Those that can be a channel; names with a dot in front are something else."""
    try:
        with os.scandir(parent) as entries:
            return [item.name for item in entries if not item.name.startswith(".") and item.is_dir()]
    except FileNotFoundError:
        return []
