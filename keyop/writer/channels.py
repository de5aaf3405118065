"""The writer's table of channels, and the descriptors of their active segments."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from keyop.errors import ChannelNameError
from keyop.ipc.board import Board
from keyop.names import check_channel, is_dead_letter
from keyop.protocol import reply
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.storage.channel_log import ChannelLog, Descriptors, SegmentFile
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import list_offsets, load_offset
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.refused import Refused, Wait

_MIB = 1 << 20
# Descriptors that are left for everything but segments: a mapped port holds one.
_RESERVED_DESCRIPTORS = 256


class Channels:
    """All channels that were used since the writer started."""

    def __init__(
        self, directory: DataDirectory, options: WriterOptions, board: Board, cursors: Cursors, log: Log
    ) -> None:
        self.by_name: dict[bytes, ChannelLog] = {}
        self.unsynced_directories: set[Path] = set()
        # Names of channels that got another segment, for the retention to look at.
        self.rolled: set[str] = set()
        self._directory = directory
        self._roll_bytes = int(options.compaction_threshold_mb * _MIB)
        self._dead_letter_roll_bytes = int(options.dead_letter_compaction_threshold_mb * _MIB)
        self._board = board
        self._cursors = cursors
        self._log = log
        self._descriptors = Descriptors()
        limit = _raise_descriptor_limit()
        self._limit = limit - min(_RESERVED_DESCRIPTORS, limit // 2)

    def open(self, name: bytes) -> ChannelLog:
        """The log of a channel, opened and put on the board. Raises `Refused` and `Wait`."""
        log = self.by_name.get(name)
        if log is not None:
            return log
        try:
            text = check_channel(name.decode())
        except (ChannelNameError, UnicodeDecodeError) as error:
            raise Refused(reply.MALFORMED) from error
        roll_bytes = self._dead_letter_roll_bytes if is_dead_letter(text) else self._roll_bytes
        log = ChannelLog(name, self._directory.channel(text), roll_bytes, self._descriptors)
        try:
            self.unsynced_directories.update(log.open(lambda: self._furthest(text)))
            for cut in log.cuts:
                self._log.warning("torn_line_cut", note=cut)
            self._cursors.cap(name, log.end)
        except OSError as error:
            if log.active is not None:
                log.active.close()
            raise sort(error) from error
        log.board_place = self._board.add(name)
        self._board.set_end(log.board_place, log.end)
        self.by_name[name] = log
        if self.crowded:
            self.close_coldest()
        return log

    def drop(self, name: bytes) -> ChannelLog | None:
        """Drop a channel that is deleted from the table; nothing of it waits for a checkpoint."""
        log = self.by_name.pop(name, None)
        if log is not None:
            if log.active is not None:
                log.active.close()
            self._board.set_end(log.board_place, 0)
        return log

    def check_deletable(self, name: bytes) -> None:
        """Raises `Refused` where something else has the name, and `Wait`."""
        path = self._directory.channel(os.fsdecode(name))
        try:
            if path.exists() and not path.is_dir():
                raise Refused(reply.NOT_A_DIRECTORY)
        except OSError as error:
            raise sort(error) from error

    def _furthest(self, channel: str) -> int:
        """The greatest offset that a file of the channel's subscribers names. Raises `OSError`."""
        found = list_offsets(self._directory.offsets(channel), load_offset)
        return max((offset.value for _id, offset in found), default=0)

    @property
    def crowded(self) -> bool:
        """Whether so many segments are open that descriptors run out."""
        return self._descriptors.open > self._limit

    def close_coldest(self) -> None:
        """Give up a tenth of the descriptors, those that were not written for longest.

        One that holds bytes which no checkpoint has synced stays: its descriptor is the one that reports an error.
        """
        idle = [log for log in self.by_name.values() if _can_close(log)]
        for log in sorted(idle, key=lambda log: log.used)[: max(1, self._limit // 10)]:
            assert log.active is not None
            log.active.close()

    def close(self) -> None:
        """Close every segment."""
        for log in self.by_name.values():
            if log.active is not None:
                log.active.close()


def release(segment: SegmentFile, log_active: bool) -> None:
    """A checkpoint has synced this segment: close it unless it is written on."""
    segment.dirty -= 1
    if not segment.dirty and not log_active:
        segment.close()


def _can_close(log: ChannelLog) -> bool:
    return log.active is not None and log.active.fd >= 0 and not log.active.dirty


def sort(error: OSError) -> Refused | Wait:
    """Whether the transaction is at fault, or the disk."""
    if error.errno in disk.WAIT_ERRNOS:
        return Wait(error)
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return Refused(reply.NOT_A_DIRECTORY)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Refused(reply.NO_PERMISSION)
    if error.errno == errno.ENAMETOOLONG:
        return Refused(reply.NAME_TOO_LONG)
    return Refused(reply.OTHER, error.errno or 0)


def _raise_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            return soft
    return wanted
