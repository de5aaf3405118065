"""What every program under test has to be able to do, so that all of them do the same work in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    from msgspec.json import decode as _decode
except ImportError:
    from json import loads as _decode  # type: ignore[no-redef]

# With this note keyop's line is about 250 bytes long, and so is what the others are given.
NOTE = "the kitchen window is open and it is getting cold in here"
_RIVAL_NOTE = "x" * 214


def rival_line(number: int) -> bytes:
    """The 250 bytes that a rival stores for a message. The others get them ready made: their clients need not encode,
    stamp, or number anything."""
    return b'{"n":%19d,"note":"%s"}\n' % (number, _RIVAL_NOTE.encode())


def rival_payload(line: bytes) -> Any:
    """What a program would make of such a line, with the quickest decoder there is for Python."""
    return _decode(line)


def rival_number(line: bytes) -> int:
    """The number that `rival_line` was given."""
    # Blanks before a number are allowed in JSON, zeros are not.
    return int(line[5:24])


class Sender(ABC):
    """A publisher's connection, used by one process."""

    @abstractmethod
    def send(self, channel: str, number: int) -> None:
        """Publish one message and return when the contender says that it has it: on the disk when strict."""

    @abstractmethod
    def send_many(self, channel: str, first: int, count: int) -> None:
        """Publish ``count`` messages numbered from ``first`` the quickest way that the contender has."""

    def close(self) -> None:  # noqa: B027 (some have nothing to let go of)
        """Let go of the connection."""


class Receiver(ABC):
    """A subscriber's connection, used by one process. How far it has come is kept by the contender."""

    @abstractmethod
    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        """Call ``handle`` for ``count`` messages, in order from the first that the channel holds, and return."""

    @abstractmethod
    def number(self, message: Any) -> int:
        """The number that the message was sent with."""

    @abstractmethod
    def payload(self, message: Any) -> Any:
        """The message's JSON content, decoded."""

    def close(self) -> None:  # noqa: B027 (some have nothing to let go of)
        """Let go of the connection."""


class Contender(ABC):
    """A program under test."""

    key: str
    label: str
    modes: tuple[bool, ...] = (True, False)
    """Which of strict (True) and periodic (False) it has."""
    shared = True
    """Several processes may publish at once."""
    receives = True
    """Another process can wait for its messages."""
    backlog = 200_000
    """How many messages a drain is measured with: fewer where they would take minutes."""

    def absent(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return None

    @abstractmethod
    def start(self, place: Path, strict: bool) -> None:
        """Make an empty store in ``place`` and start whatever serves it."""

    def stop(self) -> None:  # noqa: B027 (a library is not started)
        """Stop what `start` started."""

    @abstractmethod
    def sender(self, channels: list[str]) -> Sender:
        """Connect a publisher; called in its process."""

    def receiver(self, channel: str) -> Receiver:
        """Connect a subscriber; called in its process."""
        raise NotImplementedError

    @contextmanager
    def running(self, place: Path, strict: bool) -> Iterator[None]:
        """Started for the length of a block."""
        place.mkdir(parents=True, exist_ok=True)
        try:
            self.start(place, strict)
            yield
        finally:
            self.stop()
