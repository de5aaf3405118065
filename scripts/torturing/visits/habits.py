"""One function for each habit: what the Go program does while nobody of ours is there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

from torturing.visits.go_program import GoProgram
from torturing.visits.shift import CHANNELS, SUBSCRIPTIONS

Lines = list[tuple[int, bytes]]
"""(offset, line) of a channel, as the Go program reads it."""


class Visit:
    """The Go program in the directory, and what it has handled in the place of our subscribers."""

    def __init__(self, go: GoProgram, chance: random.Random) -> None:
        self.go = go
        self.handled: list[tuple[str, bytes]] = []
        """(subscriber's id, line)"""
        self._chance = chance

    def some_channel(self) -> str:
        """One of ours."""
        return self._chance.choice(CHANNELS)

    def some_subscriber(self) -> tuple[str, str]:
        """(channel, id) of a subscriber that is not exactly-once."""
        id = self._chance.choice([id for id in SUBSCRIPTIONS if id != "chain"])
        return SUBSCRIPTIONS[id], id

    def lines(self, channel: str) -> Lines:
        """What it reads there."""
        found: Lines = []
        for path in self.go.segments(channel):
            found += _lines_of(path)
        return found

    # ---- habits

    def appends(self) -> None:
        """Messages on our channels, and on one of its own."""
        for channel in self._chance.sample([*CHANNELS, "go-only"], 2):
            self.go.publish(channel, self._chance.randrange(1, 6))

    def tears(self) -> None:
        """It is killed in a write, as a rule behind others."""
        channel = self.some_channel()
        self.go.publish(channel, self._chance.randrange(3))
        self.go.tear(channel)

    def tears_and_comes_again(self) -> None:
        """What its next start makes of a torn line: cut from 1.13 on, before that a line is glued to it."""
        channel = self.some_channel()
        self.go.publish(channel)
        self.go.tear(channel)
        self.go.restart()
        self.go.publish(channel, 2)

    def rolls(self) -> None:
        """A new segment, with something in it or not yet."""
        channel = self.some_channel()
        self.go.publish(channel)
        self.go.roll(channel)
        self.go.publish(channel, self._chance.randrange(3))

    def rolls_too_early(self) -> None:
        """Segments that overlap."""
        channel = self.some_channel()
        self.go.publish(channel)
        self.go.roll_too_early(channel)
        self.go.publish(channel, 2)

    def deletes_segments(self) -> None:
        """Compaction: the oldest of a channel."""
        channel = self.some_channel()
        self.go.publish(channel)
        self.go.roll(channel)
        self.go.publish(channel)
        self.go.compact(channel, self._chance.randrange(1, 4))

    def handles(self) -> None:
        """As one of our subscribers: the offset goes forward, in its own form."""
        channel, id = self.some_subscriber()
        begin = self.go.offset(channel, id)
        lines = [(offset, line) for offset, line in self.lines(channel) if offset >= begin]
        taken = lines[: self._chance.randrange(len(lines) + 1)]
        if taken:
            self.handled += [(id, line) for _offset, line in taken]
            last, line = taken[-1]
            self.go.store_offset(channel, id, last + len(line) + 1)

    def sets_back(self) -> None:
        """An offset at an earlier message."""
        channel, id = self.some_subscriber()
        lines = [offset for offset, _line in self.lines(channel) if offset <= self.go.offset(channel, id)]
        if lines:
            self.go.store_offset(channel, id, self._chance.choice(lines))

    def miscounts(self) -> None:
        """Up to 1.12: an offset one byte behind the end, or in the middle of the last message."""
        channel, id = self.some_subscriber()
        begin = self.go.offset(channel, id)
        lines = [(offset, line) for offset, line in self.lines(channel) if offset >= begin]
        if lines:
            last, line = lines[-1]
            odd = last + len(line) + 2 if self._chance.random() < 0.5 else last + len(line) // 2
            self.handled += [(id, line) for _offset, line in lines[:-1]]
            if odd > last + len(line):
                self.handled.append((id, line))
            self.go.store_offset(channel, id, odd)

    def unsubscribes(self) -> None:
        """The offset file goes."""
        self.go.unsubscribe(*self.some_subscriber())

    def leaves_things(self) -> None:
        """Drafts of offset files, its audit log, dead letters, empty channels, positions of other hosts."""
        channel, id = self.some_subscriber()
        self.go.leave_drafts(channel, id)
        self.go.audit()
        self.go.dead_letter(channel)
        self.go.segments(f"{channel}.dead-letter.dead-letter")
        self.go.store_offset(channel, "fed-laptop", 0)

    def does_everything(self) -> None:
        """Several, one after the other."""
        others = [habit for name, habit in HABITS.items() if name != "everything"]
        for habit in self._chance.choices(others, k=self._chance.randrange(3, 7)):
            habit(self)


def _lines_of(path: Path) -> Iterable[tuple[int, bytes]]:
    offset = int(path.stem)
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield offset, line
        offset += len(line) + 1


HABITS: dict[str, Callable[[Visit], None]] = {
    "append": Visit.appends,
    "torn": Visit.tears,
    "torn again": Visit.tears_and_comes_again,
    "roll": Visit.rolls,
    "overlap": Visit.rolls_too_early,
    "delete": Visit.deletes_segments,
    "handle": Visit.handles,
    "set back": Visit.sets_back,
    "miscount": Visit.miscounts,
    "unsubscribe": Visit.unsubscribes,
    "leavings": Visit.leaves_things,
    "everything": Visit.does_everything,
}
"""By their names on the command line."""
