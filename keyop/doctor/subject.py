"""What is examined: this machine, and on it a data directory, as far as one is named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from keyop.configuration.settings import Settings
from keyop.storage.directory import DataDirectory


@dataclass(frozen=True, slots=True)
class Subject:
    """Settings and what follows from them. Making it touches nothing."""

    settings: Settings | None = None
    """None: no data directory was named, and the machine alone is looked at."""

    faults: str = ""
    """Why the configuration cannot be used; the machine is looked at all the same."""

    @property
    def directory(self) -> DataDirectory | None:
        """The data directory, whether it is there or not."""
        return DataDirectory(self.settings.storage.data_dir) if self.settings is not None else None

    @property
    def nearest(self) -> Path | None:
        """The data directory, or of one that is not there yet the nearest directory above it that is."""
        directory = self.directory
        if directory is None:
            return None
        path = directory.path
        while not os.path.exists(path) and path != path.parent:
            path = path.parent
        return path

    @property
    def owner_uid(self) -> int:
        """The user to whom the data directory belongs, or will: this one where it is not there yet."""
        directory = self.directory
        if directory is None or not os.path.exists(directory.path):
            return os.geteuid()
        return directory.path.stat().st_uid

    @property
    def channel_count(self) -> int:
        """How many channels the directory has."""
        directory = self.directory
        try:
            return sum(1 for _ in os.scandir(directory.channels)) if directory is not None else 0
        except OSError:
            return 0
