"""The writer's table of channels, and the descriptors of their active segments."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

from keyop import reply
from keyop.errors import ChannelNameError
from keyop.ipc.board import Board
from keyop.names import check_channel, is_dead_letter
from keyop.storage import disk
from keyop.storage.channel_log import ChannelLog, SegmentFile
from keyop.storage.directory import DataDirectory
from keyop.writer.refused import Refused, Wait
from keyop.writer_options import WriterOptions

_MIB = 1 << 20
# Descriptors that are left for everything but segments.
_RESERVED_DESCRIPTORS = 64


class Channels:
    """All channels that were used since the writer started."""

    def __init__(self, directory: DataDirectory, options: WriterOptions, board: Board) -> None:
        self.by_name: dict[bytes, ChannelLog] = {}
        self.unsynced_directories: set[Path] = set()
        # Names of channels that got another segment, for the retention to look at.
        self.rolled: set[str] = set()
        self._directory = directory
        self._roll_bytes = int(options.compaction_threshold_mb * _MIB)
        self._dead_letter_roll_bytes = int(options.dead_letter_compaction_threshold_mb * _MIB)
        self._board = board
        self._open = 0
        self._limit = _raise_descriptor_limit() - _RESERVED_DESCRIPTORS

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
        log = ChannelLog(name, self._directory.channel(text), roll_bytes)
        try:
            self.unsynced_directories.update(log.open())
        except OSError as error:
            raise _sort(error) from error
        log.board_place = self._board.add(name)
        self._board.set_end(log.board_place, log.end)
        self.by_name[name] = log
        self._open += 1
        if self._open > self._limit:
            self._close_coldest()
        return log

    def _close_coldest(self) -> None:
        """Give up a tenth of the descriptors, those that were not written for longest, synced before if need be."""
        coldest = sorted((log for log in self.by_name.values() if log.active), key=lambda log: log.used)
        for log in coldest[: max(1, self._limit // 10)]:
            assert log.active is not None
            if log.active.fd >= 0 and not log.active.dirty:
                log.active.close()
                self._open -= 1

    def reopened(self) -> None:
        """A segment whose descriptor had been given up was opened again."""
        self._open += 1

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


def _sort(error: OSError) -> Refused | Wait:
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
