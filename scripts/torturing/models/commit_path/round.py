"""What one commit takes from the rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import Channel
from torturing.models.commit_path.cursors import Cursor
from torturing.models.commit_path.entries import (
    Answer,
    Ask,
    Close,
    Consumed,
    Entry,
    Forgotten,
    Open,
    Set,
    SpillPart,
    Transaction,
)
from torturing.models.commit_path.memory import Port
from torturing.models.commit_path.spill import is_whole
from torturing.models.commit_path.subscriptions import GRANTED, SPILL_DAMAGED, WRONG, LaterError, RefusedError

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World
    from torturing.models.commit_path.writer import Writer

MAX_TRANSACTIONS = 4


class Round:
    """The round under way: what is planned, and what becomes of each ring."""

    def __init__(self, world: World, writer: Writer) -> None:
        self._world = world
        self._writer = writer
        self.sync = False
        self.taken: dict[Port, int] = {}
        self.answers: dict[Port, list[Answer]] = {}
        self.transactions: list[Transaction] = []
        self.channels: list[Channel] = []
        self.cursors: dict[Cursor, None] = {}
        self.forgotten: list[Cursor] = []
        self.spilled: list[str] = []
        self.buried: list[Port] = []
        self.files_offsets = False
        # Who asks for a checkpoint; that is all that is taken from him.
        self.asking: list[Port] = []

    @property
    def is_empty(self) -> bool:
        """Whether no frame has to be written."""
        return not (self.channels or self.cursors or self.forgotten)

    def take(self, port: Port) -> None:
        """Plan what a ring holds, as far as there is room."""
        position = port.committed
        while position < port.head and len(self.transactions) < MAX_TRANSACTIONS:
            transaction = port.records[position]
            if type(transaction.command) is Ask:
                if position == port.committed:
                    self.asking.append(port)
                    position += 1
                break
            try:
                self._check(port, transaction)
            except LaterError:
                break
            except RefusedError as refused:
                self._world.say("{} at {} is refused: {}", port.owner, position + 1, refused.code)
                self._answer(port, Answer(position + 1, refused.code, (refused.value,)))
            else:
                self._plan(port, transaction, position + 1)
            position += 1
        if position > port.committed:
            self.taken[port] = position

    def _answer(self, port: Port, answer: Answer) -> None:
        if port.alive:
            self.answers.setdefault(port, []).append(answer)

    def _check(self, port: Port, transaction: Transaction) -> None:
        subscriptions = self._writer.subscriptions
        if transaction.wrong:
            raise RefusedError(WRONG)
        if transaction.spill and not is_whole(self._world, transaction.spill, transaction.lines):
            raise RefusedError(SPILL_DAMAGED)
        command = transaction.command
        if type(command) is Open:
            self._check_not_forgotten(command)
            subscriptions.check_open(port, command)
        elif type(command) is Set or (type(command) is Close and command.forget):
            self._check_not_forgotten(command)
            subscriptions.check_unheld(port, command)
        if transaction.move is not None:
            subscriptions.check_move(port, transaction.move)

    def _check_not_forgotten(self, command: Open | Set | Close) -> None:
        if any(cursor.key == command.key for cursor in self.forgotten):
            raise LaterError

    def _plan(self, port: Port, transaction: Transaction, after: int) -> None:
        self.transactions.append(transaction)
        self.sync |= transaction.sync
        at = 0
        for line in transaction.lines:
            channel = self._writer.channel(line.channel)
            if not channel.chunks:
                self.channels.append(channel)
            channel.plan(line, SpillPart(transaction.spill, at) if transaction.spill else None)
            at += line.length
        if transaction.spill:
            self.spilled.append(transaction.spill)
        if transaction.move is not None:
            self.cursors[self._writer.subscriptions.move(transaction.move)] = None
        if transaction.command is not None:
            self._plan_command(port, transaction.command, after)

    def _plan_command(self, port: Port, command: Open | Close | Set | Ask, after: int) -> None:
        subscriptions = self._writer.subscriptions
        assert type(command) is not Ask
        channel = self._writer.channel(command.key[0])
        if type(command) is Open:
            cursor = subscriptions.open(port, command, channel)
            granted = (cursor.planned, cursor.moves, cursor.attempts, cursor.attempts_offset)
            self._answer(port, Answer(after, GRANTED, granted))
        elif type(command) is Set:
            cursor = subscriptions.set(command, channel)
        elif type(command) is Close and command.forget:
            self.forgotten.append(subscriptions.to_forget(command))
            self.sync = True
            return
        else:
            assert type(command) is Close
            closed = subscriptions.close(port, command)
            if closed is None:
                return
            cursor = closed
        self.cursors[cursor] = None
        self.files_offsets = True
        self.sync |= type(command) is not Close

    # ---- the frame

    def entries(self) -> list[Entry]:
        """The round as the entries of one frame."""
        rules = self._world.rules
        entries: list[Entry] = [entry for channel in self.channels for entry in channel.entries()]
        forgotten = {cursor.key for cursor in self.forgotten}
        entries += [self._writer.cursors.state(cursor) for cursor in self.cursors if cursor.key not in forgotten]
        if rules.forget_in_frame:
            entries += [Forgotten(cursor.key) for cursor in self.forgotten]
        if rules.positions_in_frames:
            for port, position in self.taken.items():
                answers = tuple(self.answers.get(port, ())) if rules.answers_in_frames else ()
                entries.append(Consumed(port.ring, port.owner, position, answers))
        return entries

    def add_cursors(self, cursors: list[Cursor]) -> None:
        """Cursors that moved in their slots, but none that was forgotten since."""
        by_key = self._writer.cursors.by_key
        self.cursors.update((cursor, None) for cursor in cursors if by_key.get(cursor.key) is cursor)
