"""The data directory of the model."""

from __future__ import annotations

from random import Random

from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.entries import Key

ATTEMPTS = "attempts"


class Attempts:
    """What the file of attempts says: an offset and a count for each cursor."""

    __slots__ = ("by_key",)

    def __init__(self, by_key: dict[Key, tuple[int, int]]) -> None:
        self.by_key = by_key


class DataDirectory:
    """Its directories. Those that every start makes are on the device."""

    def __init__(self) -> None:
        self.channels = Directory()
        self.subscribers = Directory()
        self.journal = Directory()
        self.spill = Directory()
        self.run = Directory()

    def lose_power(self, chance: Random) -> None:
        """All that was not synced may be lost."""
        for directory in (self.channels, self.subscribers, self.journal, self.spill, self.run):
            directory.lose_power(chance)

    def read_attempts(self) -> dict[Key, tuple[int, int]]:
        """What an earlier writer noted; nothing where it cannot be read."""
        file = self.run.file(ATTEMPTS)
        cell = file.cells[0] if file is not None and file.cells else None
        return dict(cell[0].by_key) if cell is not None and type(cell[0]) is Attempts else {}

    def write_attempts(self, by_key: dict[Key, tuple[int, int]]) -> None:
        """Note them in a new file that takes the old one's name."""
        file = File()
        file.write(0, ((Attempts(by_key), 0),))
        self.run.put(ATTEMPTS, file)
