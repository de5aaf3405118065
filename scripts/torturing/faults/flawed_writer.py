"""A writer that takes a failed sync lightly: the scenarios have to find what that costs.

``python -m torturing.faults.flawed_writer flaw=NAME key=value…``, the rest as of ``python -m keyop.writer``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from keyop.storage import disk
from keyop.storage.channel_log import SegmentFile
from keyop.storage.journal import Journal
from keyop.writer.__main__ import main
from keyop.writer.checkpoint import Checkpointer
from keyop.writer.cursors import Cursors


def _sync_the_journal_again() -> None:
    def rewrite(journal: Journal, error: OSError) -> None:
        failures = journal._wait(0, error)
        while True:
            try:
                for file in {id(file): file for file, _, _ in journal._unsynced}.values():
                    disk.sync_data(file.fd)
            except OSError as again:
                failures = journal._wait(failures, again)
            else:
                break
        with journal._lock:
            journal._unsynced.clear()
            journal._unsynced_bytes = 0
            journal._synced = journal._sequence
        journal._on_trouble(0)

    Journal._rewrite = rewrite  # type: ignore[method-assign]


def _sync_segments_again() -> None:
    def rewrite(_checkpointer: Checkpointer, _segment: SegmentFile) -> None:
        pass

    Checkpointer._rewrite = rewrite  # type: ignore[method-assign]


def _sync_offsets_again() -> None:
    Cursors.write_again = lambda *_: None  # type: ignore[method-assign]


def _sync_no_journal() -> None:
    real = disk.sync_data

    def sync(fd: int) -> None:
        if not os.readlink(f"/proc/self/fd/{fd}").endswith(".journal"):
            real(fd)

    disk.sync_data = sync


FLAWS: dict[str, Callable[[], None]] = {
    "sync-journal-again": _sync_the_journal_again,
    "sync-segments-again": _sync_segments_again,
    "sync-offsets-again": _sync_offsets_again,
    "sync-no-journal": _sync_no_journal,
}
"""What it does wrong, by name."""


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    FLAWS[words["flaw"]]()
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
