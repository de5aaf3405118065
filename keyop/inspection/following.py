"""Reading a channel as it grows, with nothing but its files: no writer, no port, no shared memory.

So it works beside a writer in another container, beside a Go program, and on a copy. Nothing is kept: who wants to go
on where it stopped subscribes, or notes `Message.offset`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from keyop.inspection import lookback
from keyop.messages.envelope import BadLine, Envelope, Fault, decode_line
from keyop.messages.message import Message
from keyop.names import check_channel
from keyop.storage.directory import DataDirectory
from keyop.storage.segment_reader import Batch, SegmentReader
from keyop.storage.segments import align_offset

if TYPE_CHECKING:
    from collections.abc import Generator

_log = logging.getLogger("keyop.inspection.following")

Start = Literal["latest", "earliest"] | int | datetime

# A change that no file system tells of (a bind mount on macOS, a network) is seen after this.
_TICK_MS = 500
# watchfiles looks at what the kernel told it this often, and hands over what came together.
_STEP_MS = 20
_DEBOUNCE_MS = 40
# A line that does not parse may have been caught half written: it is looked at again.
_SECOND_LOOK_S = 0.01
_SETTLED_BYTES = 1 << 20


class Record(NamedTuple):
    """One envelope as it stands in a channel."""

    offset: int
    """Where its line begins, in bytes."""
    line: bytes
    """The envelope's JSON, without a newline."""
    envelope: Envelope


def follow(data_dir: str | os.PathLike[str], channel: str, start: Start = "latest", *, wait: bool = True) -> Follower:
    """The messages of a channel, those that come included: ``for message in follow("./data", "alerts"): ...``.

    Reads the files and changes nothing. ``start`` is ``"latest"``, ``"earliest"``, an offset, or a `datetime` (one
    without a zone is local). A channel that is not there yet is waited for. With ``wait=False`` it ends at the
    channel's end. `Follower.close`, from any thread, ends it; ``async for`` works as well.

    Raises `ChannelNameError`, `DataDirectoryError`, `OSError`.
    """
    check_channel(channel)
    if isinstance(start, str) and start not in ("latest", "earliest"):
        raise ValueError(f'start is "latest", "earliest", an offset or a datetime, not {start!r}')
    directory = DataDirectory(data_dir)
    directory.require()
    return Follower(directory.channel(channel), start, wait=wait)


class Follower(Iterator[Message[Any]], AsyncIterator[Message[Any]]):
    """What `follow` gives. For one thread, but for `close`."""

    def __init__(self, directory: Path, start: Start, *, wait: bool) -> None:
        """`directory` is the channel's; it need not be there."""
        self._directory = directory
        self._waits = wait
        self._reader = SegmentReader(directory, _start_offset(directory, start))
        self._current: Iterator[Record] = iter(())
        self._stop = threading.Event()
        self._watch: Generator[Any, None, None] | None = None
        self._watched: tuple[Path, int] | None = None

    # ---- messages

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message[Any]:
        while (record := self.take()) is None:
            if not self._waits or not self.wait():
                self._end()
                raise StopIteration
        return Message(record.envelope, record.envelope.payload, record.offset)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[Any]:
        while (record := self.take()) is None:
            if not self._waits or not await asyncio.to_thread(self.wait):
                self._end()
                raise StopAsyncIteration
        return Message(record.envelope, record.envelope.payload, record.offset)

    # ---- records

    @property
    def offset(self) -> int:
        """Behind what was read from the files so far, in bytes."""
        return self._reader.offset

    def take(self) -> Record | None:
        """The next record that is there; None if there is none now. Raises `OSError`."""
        while not self._stop.is_set():
            record = next(self._current, None)
            if record is not None:
                return record
            batch = self._reader.read_batch(relist=True)
            for event in self._reader.events:
                _log.warning("%s", event)
            self._reader.events.clear()
            if batch is None:
                break
            self._current = self._records(batch)
        return None

    def _records(self, batch: Batch) -> Iterator[Record]:
        offset = batch.start
        for line in batch.lines:
            found = decode_line(line)
            if isinstance(found, BadLine):
                record = self._mend(line, offset, found)
                if record is not None:
                    yield record
            else:
                yield Record(offset, line, found)
            offset += len(line) + 1

    def _mend(self, line: bytes, offset: int, bad: BadLine) -> Record | None:
        """What can be had of a line that is no good envelope."""
        if bad.fault is Fault.DAMAGED and self._reader.offset - offset < _SETTLED_BYTES:
            time.sleep(_SECOND_LOOK_S)
            line = self._reread(line, offset)
            again = decode_line(line)
            if not isinstance(again, BadLine):
                return Record(offset, line, again)
            bad = again
        outcome = "passed over" if bad.envelope is None else "its last whole envelope counts"
        _log.warning("%s: the record at offset %d, %s: %s", self._directory, offset, outcome, bad.reason)
        return None if bad.envelope is None else Record(offset, line[bad.start :], bad.envelope)

    def _reread(self, line: bytes, offset: int) -> bytes:
        reader = SegmentReader(self._directory, offset)
        try:
            batch = reader.read_batch()
        finally:
            reader.close()
        return batch.lines[0] if batch is not None and batch.start == offset else line

    # ---- waiting

    def wait(self) -> bool:
        """Wait until something may have come, half a second at most; False once it is closed."""
        if self._stop.is_set():
            return False
        watched = _nearest(self._directory)
        if self._watch is None or watched != self._watched:
            self._forget_watch()
            self._watch = self._watch_for_changes(watched[0])
            self._watched = watched
        try:
            next(self._watch, None)
        except FileNotFoundError:
            self._forget_watch()  # removed in between
        return not self._stop.is_set()

    def _watch_for_changes(self, place: Path) -> Generator[Any, None, None]:
        from watchfiles import watch

        return watch(
            place,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            stop_event=self._stop,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            recursive=False,
        )

    def _forget_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # ---- the end

    def close(self) -> None:
        """End the iteration, from whatever thread; a wait under way ends within half a second."""
        self._stop.set()

    def _end(self) -> None:
        self._reader.close()
        self._forget_watch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end()


def _start_offset(directory: Path, start: Start) -> int:
    asked = lookback.offset_of(directory, start)
    offset, why = align_offset(directory, asked)
    if why:
        _log.warning("%s: offset %s is %s; reading begins at %d", directory, start, why, offset)
    return offset


def _nearest(directory: Path) -> tuple[Path, int]:
    """The directory, or that of its parents which is there, with its inode: one made anew has to be watched anew."""
    while True:
        try:
            return directory, directory.stat().st_ino
        except (FileNotFoundError, NotADirectoryError):
            if directory.parent == directory:
                raise
            directory = directory.parent
