"""Which old segments go: consumed by everybody, too many, or too old. Never the active one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from keyop.names import is_dead_letter
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import list_offsets
from keyop.storage.segments import Segment, list_segments
from keyop.storage.wall_clock import CLOCK_IS_SET_S, WallClock
from keyop.writer.log import Log

if TYPE_CHECKING:
    from keyop.writer.committer import Committer

EVERY_S = 30.0
DEAD_LETTER_RETENTION_S = 7 * 86_400.0
_CONSUMED = "consumed by every subscriber"


class Removal:
    """Segments of one channel that may go, each with the reason."""

    __slots__ = ("channel", "segments")

    def __init__(self, channel: str, segments: dict[Segment, str]) -> None:
        self.channel = channel
        self.segments = segments


class Retention:
    """Looks every 30 s, in a thread of its own, at the channels that have more than one segment."""

    def __init__(self, directory: DataDirectory, options: WriterOptions, committer: Committer, log: Log) -> None:
        self._directory = directory
        self._options = options
        self._committer = committer
        self._log = log
        self._clock = WallClock()
        self._next_s = time.monotonic() + EVERY_S
        self._rolled: set[str] | None = None
        self._running = False
        self._evicted_bytes = 0

    def tick(self) -> None:
        """From the main thread: begin a look if one is due."""
        now_s = time.monotonic()
        trusted = self._clock.trusted(time.time(), now_s)
        if now_s < self._next_s or self._running:
            return
        self._next_s = now_s + EVERY_S
        self._running = True
        threading.Thread(target=self._look, args=(trusted,), name="retention", daemon=True).start()

    def _look(self, by_age: bool) -> None:
        try:
            found = self.removals(by_age)
            if found:
                # Offsets count once they are on the device: a power cut must not bring an older one back.
                self._committer.request_checkpoint(lambda: self._remove_after_checkpoint(found, by_age))
        except OSError as error:
            self._log.warning("retention_failed", why=error)
        finally:
            self._running = False

    def _remove_after_checkpoint(self, found: list[Removal], by_age: bool) -> None:
        try:
            self.remove(found, by_age)
        except OSError as error:
            self._log.warning("retention_failed", why=error)

    def remove(self, found: list[Removal], by_age: bool) -> None:
        """Unlink what was found before the checkpoint, so that the offsets that say so are on the device.

        And what may still go: somebody may have subscribed meanwhile, or an offset have been moved back.
        """
        before = {segment for removal in found for segment in removal.segments}
        for removal in self.removals(by_age):
            for segment, why in removal.segments.items():
                if segment not in before:
                    break
                self._remove_one(segment, why)
            disk.sync_path(self._directory.channel(removal.channel))
        self._committer.board.set_counter("evicted_bytes", self._evicted_bytes)

    def _remove_one(self, segment: Segment, why: str) -> None:
        size = segment.path.stat().st_size
        disk.unlink(segment.path)
        disk.step("segment.removed")
        if why != _CONSUMED:
            self._evicted_bytes += size
        self._log.info("segment_removed", file=segment.path, bytes=size, why=why)

    def removals(self, by_age: bool) -> list[Removal]:
        """What may go now."""
        found = []
        for channel in sorted(self._channels()):
            removal = self._of_channel(channel, by_age)
            if removal is not None:
                found.append(removal)
        return found

    def _channels(self) -> set[str]:
        """Those that may have more than one segment: all that had at the first look, and what has rolled since."""
        rolled = self._committer.channels.rolled
        if self._rolled is None:
            self._rolled = {
                entry.name for entry in os.scandir(self._directory.channels) if entry.is_dir() and _several(entry.path)
            }
        while rolled:
            self._rolled.add(rolled.pop())
        return self._rolled

    def _of_channel(self, channel: str, by_age: bool) -> Removal | None:
        segments = list_segments(self._directory.channel(channel))[0]
        offsets = list_offsets(self._directory.offsets(channel))
        consumed = min((0 if offset.damaged else offset.value for _id, offset in offsets), default=0)
        most = self._options.max_files
        oldest_s = time.time() - self._age_s(channel) if by_age and self._age_s(channel) > 0 else None
        going: dict[Segment, str] = {}
        for number, segment in enumerate(segments[:-1]):
            if segments[number + 1].start <= consumed:
                reason = _CONSUMED
            elif most is not None and most > 0 and len(segments) - number > most:
                reason = f"more than {most} segments"
            elif oldest_s is not None and CLOCK_IS_SET_S < segment.path.stat().st_mtime < oldest_s:
                reason = "older than the retention"
            else:
                break
            going[segment] = reason
        return Removal(channel, going) if going else None

    def _age_s(self, channel: str) -> float:
        if self._options.retention > 0:
            return self._options.retention
        return DEAD_LETTER_RETENTION_S if is_dead_letter(channel) else 0.0


def _several(directory: str) -> bool:
    return len(list_segments(Path(directory))[0]) > 1
