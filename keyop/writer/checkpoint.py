"""Checkpoints: what a journal file says is brought to the device elsewhere, then the file is free.

They run in a thread of their own; commits go on in the other file meanwhile.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from keyop.storage import disk
from keyop.storage.channel_log import SegmentFile
from keyop.storage.journal import Journal
from keyop.storage.rewrite import rewrite_segment

# Above this many segments one sync of the whole file system is cheaper than one for each.
_MANY_SEGMENTS = 64
_BACKOFF_S = (0.05, 0.2, 1.0, 5.0)


class Checkpoint:
    """What has to be synced before journal file ``index`` may be freed; None: no file is."""

    def __init__(self, index: int | None, *, grow: bool = False) -> None:
        self.index = index
        self.grow = grow
        self.segments: set[SegmentFile] = set()
        self.files: set[Path] = set()
        self.directories: set[Path] = set()
        self.spills: set[bytes] = set()
        self.then: list[Callable[[], None]] = []
        self.done = threading.Event()


class Checkpointer:
    """The thread. ``on_done`` is called in it after each checkpoint, ``on_trouble`` with a failing disk's errno.

    ``write_again`` brings a small file's bytes into it once more; ``on_skipped`` is told of one that cannot be synced.
    """

    def __init__(
        self,
        journal: Journal,
        on_done: Callable[[Checkpoint], None],
        on_trouble: Callable[[int], None],
        write_again: Callable[[Path], None],
        on_skipped: Callable[[Path, OSError], None],
    ) -> None:
        self._journal = journal
        self._on_done = on_done
        self._on_trouble = on_trouble
        self._write_again = write_again
        self._on_skipped = on_skipped
        self._queue: SimpleQueue[Checkpoint] = SimpleQueue()
        threading.Thread(target=self._run, name="checkpoint", daemon=True).start()

    def submit(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint done; `Checkpoint.done` is set when the file is free."""
        self._queue.put(checkpoint)

    def _run(self) -> None:
        while True:
            checkpoint = self._queue.get()
            self._do(checkpoint)
            for then in checkpoint.then:
                then()
            self._on_done(checkpoint)
            checkpoint.done.set()

    def _do(self, checkpoint: Checkpoint) -> None:
        if len(checkpoint.segments) > _MANY_SEGMENTS:
            _sync_file_system(next(iter(checkpoint.segments)).fd)
        for segment in checkpoint.segments:
            self._until_it_holds(partial(disk.sync_data, segment.fd), partial(self._rewrite, segment))
        disk.step("checkpoint.segments_synced")
        for path in checkpoint.files:
            self._until_it_holds(partial(self._sync_path, path), partial(self._write_again, path))
        for path in checkpoint.directories:
            self._until_it_holds(partial(self._sync_path, path), lambda: None)
        disk.step("checkpoint.synced")
        index = checkpoint.index
        if index is not None:
            self._until_it_holds(partial(self._journal.free, index, grow=checkpoint.grow), lambda: None)
            disk.step("checkpoint.freed")

    def _until_it_holds(self, action: Callable[[], None], mend: Callable[[], None]) -> None:
        """After a failed sync the kernel may have dropped the pages: they are written again before the next try."""
        failures = 0
        while True:
            try:
                if failures:
                    mend()
                action()
            except OSError as error:
                self._on_trouble(error.errno or errno.EIO)
                time.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
            else:
                break
        if failures:
            self._on_trouble(0)

    def _rewrite(self, segment: SegmentFile) -> None:
        rewrite_segment([self._journal.path(0), self._journal.path(1)], segment)

    def _sync_path(self, path: Path) -> None:
        try:
            disk.sync_path(path)
        except FileNotFoundError:
            pass  # removed since: nothing of it is owed
        except OSError as error:
            if error.errno in disk.WAIT_ERRNOS:
                raise
            # One file that nobody may read must not keep the journal from being freed.
            self._on_skipped(path, error)


def _sync_file_system(fd: int) -> None:
    """``syncfs`` where there is one; its errors are found again by the sync of each file."""
    try:
        import ctypes

        ctypes.CDLL(None).syncfs(fd)
    except (ImportError, AttributeError, OSError):
        os.sync()
