"""The commit journal: two zero-filled files used in turn, one frame a group commit, one sync for all channels.

Overwriting allocated blocks is what makes a commit cheap: an append changes the file's length, so that the file system
commits a journal of its own as well.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

from keyop.storage import disk, frame
from keyop.storage.journal_file import JournalFile

NAMES = ("a.journal", "b.journal")
FIRST_SIZE_BYTES = 1 << 20
# Frames since the last good sync are kept, to be written again where a sync fails; this is where one is forced.
MAX_UNSYNCED_BYTES = 1 << 20
_FILLS_FAST_S = 10.0
_BACKOFF_S = (0.01, 0.05, 0.2, 1.0, 5.0)


class Journal:
    """The writer's journal. Frames are written by one thread; `sync` and `free` may run in others.

    ``on_trouble(errno)`` is called with the error of a failing disk, and with 0 when it works again.
    """

    def __init__(self, directory: Path, max_size_bytes: int, on_trouble: Callable[[int], None]) -> None:
        """Open both files, which must be free (see `recovery`). Raises `OSError`."""
        self._max_size_bytes = max_size_bytes
        self._on_trouble = on_trouble
        self._files: list[JournalFile] = []
        try:
            for name in NAMES:
                self._files.append(JournalFile(directory / name, min(FIRST_SIZE_BYTES, max_size_bytes)))
            disk.sync_path(directory)
        except OSError:
            self.close()
            raise
        self._current = 0
        self._sequence = 0
        self._synced = 0
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        # One sync at a time: a descriptor reports an error to one caller only, another would believe that all is well.
        self._sync_lock = threading.Lock()
        self._unsynced: list[tuple[JournalFile, int, bytes]] = []
        self._unsynced_bytes = 0
        self._freed = [threading.Event(), threading.Event()]
        for event in self._freed:
            event.set()
        self.syncs = 0
        self.on_sync: Callable[[int], None] = _nobody
        """Told how long each sync took, in nanoseconds; one call at a time."""

    @staticmethod
    def prepare(directory: Path, max_size_bytes: int) -> None:
        """Make both files, as far as they are missing or sparse; where there is no room for them, may be called again.

        Raises `OSError`.
        """
        for name in NAMES:
            JournalFile(directory / name, min(FIRST_SIZE_BYTES, max_size_bytes)).close()

    # ---- frames

    @property
    def current(self) -> int:
        """Which of the two files is written now, 0 or 1."""
        return self._current

    @property
    def max_frame_bytes(self) -> int:
        """A round takes no more than this, a quarter of the file, so that no file is filled by one frame."""
        return self._files[self._current].size // 4

    @property
    def at_rest(self) -> bool:
        """Whether neither file holds frames."""
        return not any(file.live for file in self._files)

    @property
    def in_use(self) -> bool:
        """Whether the current file holds frames."""
        return self._files[self._current].live

    def fits(self, length: int) -> bool:
        """Whether entries of so many bytes fit into the current file."""
        return frame.padded(length + frame.HEADER_BYTES) <= self._files[self._current].room()

    def make_room(self, length: int) -> None:
        """Grow the current file, which holds no frame yet, until entries of so many bytes fit. Raises `OSError`.

        A round is bounded, but a single transaction of many small entries, or the last words of a process with
        thousands of subscriptions, may be larger than a small file.
        """
        file = self._files[self._current]
        assert not file.live
        missing = frame.padded(length + frame.HEADER_BYTES) - file.room()
        file.grow(file.size + max(0, missing))

    def write(self, entries: list[bytes]) -> None:
        """Write one frame. A failing disk is waited for: nothing else can be done with a frame."""
        file = self._files[self._current]
        # All of it under the lock: a sync that ends meanwhile must not count this frame among those it has synced.
        with self._lock:
            sequence = self._sequence + 1
            at = file.position
            if at:
                data = frame.compose(file.salt, sequence, self._synced, entries)
            else:
                header = file.begin(sequence)
                self._freed[self._current].clear()
                data = header + frame.compose(file.salt, sequence, self._synced, entries)
            self._put(file, data, at)
            disk.step("frame.written")
            self._sequence = sequence
            self._unsynced.append((file, at, data))
            self._unsynced_bytes += len(data)
            file.position = at + len(data)
        if self._unsynced_bytes > MAX_UNSYNCED_BYTES:
            self.sync()

    def _put(self, file: JournalFile, data: bytes, at: int) -> None:
        failures = 0
        while True:
            try:
                disk.write_at(file.fd, data, at)
            except OSError as error:
                failures = self._wait(failures, error)
            else:
                break
        if failures:
            self._on_trouble(0)

    def sync(self) -> None:
        """Bring every frame written so far to the device.

        After a failed sync the kernel may have dropped the dirty pages, and a second call may succeed without them:
        the same bytes are written to the same place again, until a sync holds.
        """
        with self._sync_lock:
            self._sync()

    def _sync(self) -> None:
        with self._lock:
            pending = len(self._unsynced)
            sequence = self._sequence
            files = {id(file): file for file, _, _ in self._unsynced}
        if not pending:
            return
        began_ns = time.perf_counter_ns()
        try:
            for file in files.values():
                disk.sync_data(file.fd)
        except OSError as error:
            self._rewrite(error)
            return
        disk.step("frame.synced")
        self.on_sync(time.perf_counter_ns() - began_ns)
        self.syncs += 1
        with self._lock:
            self._unsynced_bytes -= sum(len(data) for _, _, data in self._unsynced[:pending])
            del self._unsynced[:pending]
            self._synced = sequence

    def _rewrite(self, error: OSError) -> None:
        with self._lock:
            failures = self._wait(0, error)
            while True:
                try:
                    for file, at, data in self._unsynced:
                        disk.write_at(file.fd, data, at)
                    for file in {id(file): file for file, _, _ in self._unsynced}.values():
                        disk.sync_data(file.fd)
                except OSError as again:
                    failures = self._wait(failures, again)
                else:
                    break
            self._unsynced.clear()
            self._unsynced_bytes = 0
            self._synced = self._sequence
            self.syncs += 1
        self._on_trouble(0)

    def _wait(self, failures: int, error: OSError) -> int:
        self._on_trouble(error.errno or errno.EIO)
        time.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
        return failures + 1

    # ---- taking turns

    def switch(self) -> int:
        """Go over to the other file, which must be free (`wait_free`); return the one that was left.

        What was left is synced first: a frame in the new file may be synced before it otherwise, and a power cut
        would leave a hole between the files.
        """
        self.sync()
        left = self._current
        self._current = 1 - left
        self._began_s = time.monotonic()
        disk.step("journal.switched")
        return left

    def wait_free(self, timeout_s: float | None = None) -> bool:
        """Wait until the other file is free."""
        return self._freed[1 - self._current].wait(timeout_s)

    def filled_fast(self) -> bool:
        """Whether the current file filled so quickly that larger files are worth their space."""
        return time.monotonic() - self._began_s < _FILLS_FAST_S

    def free(self, index: int, *, grow: bool = False) -> None:
        """Mark a file free after its checkpoint: all that it says stands, synced, elsewhere. Raises `OSError`."""
        file = self._files[index]
        if file.live:
            file.free()
        if grow:
            try:
                file.grow(min(file.size * 2, self._max_size_bytes))
            except OSError:
                pass  # a full disk: the smaller file does as well
        self._freed[index].set()

    def path(self, index: int) -> Path:
        """Where a file lies, to be read back."""
        return self._files[index].path

    def close(self) -> None:
        """Close both files."""
        for file in self._files:
            file.close()


def _nobody(_took_ns: int) -> None:
    pass
