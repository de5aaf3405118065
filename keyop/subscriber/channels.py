"""Which channels of a data directory a pattern fits, looked up again only when one has come or gone."""

from __future__ import annotations

import os
import time

from keyop.errors import NameRuleError
from keyop.names import check_channel, matches
from keyop.storage.directory import DataDirectory

# The kernel's time stamps are this coarse: a directory changed twice within it may look unchanged.
_STAMP_NS = 20_000_000


class MatchingChannels:
    """A channel is a directory below ``channels/``, so its coming changes the time of that."""

    def __init__(self, directory: DataDirectory, pattern: str) -> None:
        self._path = directory.channels
        self._pattern = pattern
        self._changed_ns = -1
        self._looked_ns = 0

    def look(self) -> set[str] | None:
        """The channels that fit now; None if none has come or gone since the last look. Raises `OSError`."""
        changed_ns = os.stat(self._path).st_mtime_ns
        if changed_ns == self._changed_ns and changed_ns + _STAMP_NS < self._looked_ns:
            return None
        self._changed_ns = changed_ns
        self._looked_ns = time.time_ns()
        return self.list()

    def list(self) -> set[str]:
        """The channels that fit. Raises `OSError`."""
        with os.scandir(self._path) as entries:
            return {entry.name for entry in entries if self._fits(entry.name) and entry.is_dir()}

    def _fits(self, name: str) -> bool:
        if not matches(self._pattern, name):
            return False
        try:
            check_channel(name)
        except NameRuleError:
            return False  # no channel, whatever it is
        return True
