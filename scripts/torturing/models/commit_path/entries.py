"""What a frame of the journal says, and what a process asks for in a transaction."""

from __future__ import annotations

from typing import NamedTuple

from torturing.models.commit_path.line import Cell, Line

Key = tuple[str, str]
"""Channel and subscriber's id."""


class SpillPart(NamedTuple):
    """Where lines stand in a spill file."""

    name: str
    at: int


class Append(NamedTuple):
    """Lines at one place of a channel."""

    channel: str
    offset: int
    cells: tuple[Cell, ...]
    starts_segment: bool
    spill: SpillPart | None


class CursorState(NamedTuple):
    """A cursor as a frame has it."""

    key: Key
    moves: int
    offset: int
    attempts_offset: int
    attempts: int
    exactly_once: bool


class Forgotten(NamedTuple):
    """An id whose offset was deleted."""

    key: Key


class Answer(NamedTuple):
    """The writer's answer to the record that ends at a position."""

    position: int
    code: str
    value: tuple[int, ...] = ()


class Consumed(NamedTuple):
    """Up to where a ring is consumed, and the answers to what it held."""

    ring: int
    owner: str
    position: int
    answers: tuple[Answer, ...]


Entry = Append | CursorState | Forgotten | Consumed


class Move(NamedTuple):
    """In a transaction: a cursor from an old to a new place."""

    key: Key
    old: int
    new: int
    moves: int
    exactly_once: bool


class Open(NamedTuple):
    """In a transaction: a subscription is asked for."""

    key: Key
    slot: int
    exactly_once: bool


class Close(NamedTuple):
    """In a transaction: it is given back, or with ``forget`` deleted."""

    key: Key
    forget: bool


class Set(NamedTuple):
    """In a transaction: a cursor that nobody holds is set to a place."""

    key: Key
    offset: int


class Ask(NamedTuple):
    """In a transaction: a checkpoint is asked for."""


class Transaction:
    """What a process puts into its ring: all of it or nothing takes effect."""

    __slots__ = ("command", "lines", "move", "spill", "sync", "wrong")

    def __init__(
        self,
        lines: list[Line] = [],  # noqa: B006 - nobody changes it
        *,
        move: Move | None = None,
        command: Open | Close | Set | Ask | None = None,
        sync: bool = False,
        spill: str = "",
        wrong: bool = False,
    ) -> None:
        self.lines = lines
        self.move = move
        self.command = command
        self.sync = sync
        self.spill = spill
        # The writer will refuse it: its output goes to a channel that cannot be.
        self.wrong = wrong
