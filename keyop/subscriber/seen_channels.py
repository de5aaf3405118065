"""The memory of a pattern's subscriber: whether it is new, and which channels it has seen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from keyop.attachment.attachment import Attachment
from keyop.ipc import lease
from keyop.storage.pattern_file import PatternFileDamaged, Seen, pattern_file, read_seen, remove_seen, write_seen

_LOCK = "patterns.lock"
_LOCK_PATIENCE_S = 5.0
# Stands where a damaged file may have named other patterns: none of this id counts as new.
_UNTOLD = ""


class SeenChannels:
    """Of one id and pattern. What it is told is on the device when it returns.

    Several processes may share the id, and several patterns have it: each adds to what the file says, under a lock.
    """

    def __init__(self, attachment: Attachment, pattern: str, id: str, log: logging.Logger) -> None:
        self._path = pattern_file(attachment.directory, id)
        self._lock_path = attachment.directory.run / _LOCK
        self._pattern = pattern
        self._log = log
        self.channels: set[str] = set()
        """Those that the file names."""

    def load(self) -> bool:
        """Whether the pattern was followed under this id before. Raises `OSError`.

        A damaged file counts as if it was: then channels without an offset are read from their start, which repeats
        messages at worst. Otherwise those that came meanwhile might be passed over.
        """
        try:
            seen = read_seen(self._path)
        except PatternFileDamaged as damage:
            self._log.warning(
                "%s: %s; all channels without an offset are read from their start, and the file is written anew",
                self._path,
                damage,
            )
            return True
        self.channels = seen.get(self._pattern, set())
        return self._pattern in seen or _UNTOLD in seen

    def add(self, channels: Collection[str]) -> None:
        """Remember the pattern and these channels. Raises `OSError`."""

        def added(seen: Seen) -> Seen:
            seen.setdefault(self._pattern, set()).update(channels)
            return seen

        self._change(added)
        self.channels.update(channels)

    def drop(self, channels: Collection[str]) -> None:
        """These channels are gone. Raises `OSError`."""

        def dropped(seen: Seen) -> Seen:
            seen.get(self._pattern, set()).difference_update(channels)
            return seen

        self._change(dropped)
        self.channels.difference_update(channels)

    def forget(self) -> None:
        """Forget the pattern: whoever follows it next is new. Raises `OSError`."""

        def without(seen: Seen) -> Seen:
            seen.pop(self._pattern, None)
            return seen

        self._change(without)
        self.channels = set()

    def _change(self, change: Callable[[Seen], Seen]) -> None:
        held = lease.acquire(self._lock_path, _LOCK_PATIENCE_S)
        if held is None:
            raise OSError(f"{self._lock_path}: another process holds it")
        try:
            seen = change(self._read())
            if seen:
                write_seen(self._path, seen)
            else:
                remove_seen(self._path)
        finally:
            held.release()

    def _read(self) -> Seen:
        try:
            return read_seen(self._path)
        except PatternFileDamaged:
            return {_UNTOLD: set()}
