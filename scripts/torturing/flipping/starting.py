"""What a writer does to a directory's files when it starts, in this process and without syncs: 500 starts a second.

It is the writer's own code, all of it but shared memory: recovery, cursors, offset files, every channel opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.file_system import FileSystem
from keyop.storage.offsets import read_offset
from keyop.storage.recovery import recover
from keyop.storage.segments import align_offset
from keyop.writer.channels import Channels
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log
from keyop.writer.spill import Spills
from keyop.writer.start import finish_recovery, report, restore_cursors
from torturing.flipping.directories import Subscriber

_CHANNELS = 64


class Start:
    """A start: what the log said, and where each subscriber goes on."""

    def __init__(self, directory: DataDirectory) -> None:
        """Make it. Raises whatever the writer's code raises."""
        self.said: list[str] = []
        self._directory = directory
        log = Log(level="warning", sink=self.said.append)
        recovered = recover(directory)
        report(recovered, log)
        self._cursors = cursors = Cursors(directory, log)
        channels = Channels(directory, _OPTIONS, _board(), cursors, log)
        restore_cursors(directory, recovered, cursors, log)
        spills = Spills(directory.spill)
        finish_recovery(directory, recovered, cursors, spills)
        try:
            for name in sorted(os.listdir(directory.channels)):
                channels.open(name.encode())
        finally:
            channels.close()
        cursors.file()

    def place_of(self, subscriber: Subscriber) -> int | None:
        """Where a subscriber begins; None if it is refused, as an exactly-once one is whose offset is damaged."""
        channel, id, exactly_once = subscriber
        cursor = self._cursors.find((channel.encode(), id.encode()), 0)
        offset = 0
        if cursor is not None:
            offset = cursor.offset
        else:
            parsed = read_offset(self._directory.offset_file(channel, id))
            if parsed is None:
                self.said.append(f"{subscriber}: no offset")
            elif parsed.damaged:
                self.said.append(f"{subscriber}: {parsed.damaged}")
                if exactly_once:
                    return None
            else:
                offset = parsed.value
        aligned, why = align_offset(self._directory.channel(channel), offset)
        if why:
            self.said.append(f"{subscriber}: {offset} is {why}")
        return aligned

    def attempts_of(self, subscriber: Subscriber) -> tuple[int, int]:
        """Attempts begun and their offset, as a successor would get them."""
        key = (subscriber.channel.encode(), subscriber.id.encode())
        cursor = self._cursors.find(key, 0)
        if cursor is None:
            (cursor,) = self._cursors.add(key, [self.place_of(subscriber) or 0]).cursors
        return cursor.attempts, cursor.attempts_offset


_OPTIONS = WriterOptions("")


def _board() -> Board:
    size = layout.BOARD_HEADER_BYTES + _CHANNELS * layout.CHANNEL_WORDS * 4
    words = memoryview(bytearray(size)).cast("I")
    words[layout.TABLE_SLOTS] = _CHANNELS
    return Board(SimpleNamespace(words=words))  # type: ignore[arg-type]


class Changes:
    """The paths that were changed through `keyop.storage.disk` since the last `clear`."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def clear(self) -> None:
        """Begin anew."""
        self.paths.clear()


@contextmanager
def watched_disk() -> Iterator[Changes]:
    """Have every change of a file noted, and nothing synced."""
    changes = Changes()
    note = changes.paths.add

    def noting_fd(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *arguments: Any) -> Any:
            note(os.readlink(f"/proc/self/fd/{fd}"))
            return real(fd, *arguments)

        return call

    def noting_path(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            for argument in arguments:
                if isinstance(argument, (str, Path)):
                    note(str(argument))
            return real(*arguments)

        return call

    def opening(path: Path | str, flags: int = os.O_RDWR, mode: int = 0o644) -> int:
        if flags & (os.O_CREAT | os.O_TRUNC):
            note(str(path))
        return open_file(path, flags, mode)

    open_file = disk.open_file
    replaced: dict[Any, dict[str, Any]] = {
        disk: {
            "write_at": noting_fd(disk.write_at),
            "truncate": noting_fd(disk.truncate),
            "rename": noting_path(disk.rename),
            "unlink": noting_path(disk.unlink),
            "make_directory": noting_path(disk.make_directory),
            "open_file": opening,
            "sync_data": lambda _fd: None,
            "sync_path": lambda _path: None,
        },
        FileSystem: {"sync": lambda *_: None},
    }
    before = {owner: {name: getattr(owner, name) for name in names} for owner, names in replaced.items()}
    _set(replaced)
    try:
        yield changes
    finally:
        _set(before)


def _set(attributes: dict[Any, dict[str, Any]]) -> None:
    for owner, values in attributes.items():
        for name, value in values.items():
            setattr(owner, name, value)
