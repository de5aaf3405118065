"""What is put back for one subscriber: a second cursor of its own, on ``{channel}.replay``.

`keyop dead-letter replay` makes that cursor before it appends anything for a subscriber. So nearly all subscriptions
have none, and pay a look at the board with each tick. Whoever has one handles what is put back between two messages of
its channel, in the same thread, with the same retries and dead letters.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import transaction
from keyop.attachment.tail import Tail
from keyop.errors import KeyopError
from keyop.ipc import layout
from keyop.names import replay_channel
from keyop.protocol import entry

if TYPE_CHECKING:
    from keyop.subscriber.subscription import Subscription

_TRY_AGAIN_S = 5.0


class Replays:
    """Follows the replay channel for one subscription, as soon as there is something for it."""

    def __init__(self, owner: Subscription, attachment: Attachment) -> None:
        self._owner = owner
        self._attachment = attachment
        self._log = attachment.logger.getChild("subscriber")
        self._channel = replay_channel(owner.channel)
        self._file = attachment.directory.offset_file(self._channel, owner.id)
        self._second: Subscription | None = None
        self._stopping = False
        # The cursor is there, and is to be opened.
        self._due = False
        self._complaint = ""
        self._try_at_s = 0.0
        # By which growth is seen without a look at any file.
        self._watch = Tail(attachment, self._channel, 0, lambda _bytes: None, lambda: None)
        self._board: object = None

    def begin(self) -> None:
        """When the subscription is granted: open the second cursor if there is one, and look for one from now on."""
        self._has_changed()
        if self._file.exists():
            self._open()

    def look(self) -> None:
        """In the tick's thread: somebody may have put something back, while the handler is busy with a backlog."""
        second = self._second
        if second is not None:
            if second.has_grown():
                self._owner.interrupt()
        elif self._has_changed() or 0.0 < self._try_at_s <= time.monotonic():
            self._due = self._file.exists()
            if self._due:
                self._owner.interrupt()

    def _has_changed(self) -> bool:
        """Whether the channel has grown, by what the board says; of a new writer's board nobody knows."""
        board = self._attachment.writer.board
        if board is self._board and not self._watch.grown():
            return False
        self._board = board
        self._watch.note_growth()
        return True

    def news(self) -> bool:
        """Whether there is reason for `deliver`. Costs a few loads."""
        return self._due or (self._second is not None and self._second.has_news())

    def deliver(self) -> None:
        """Deliver what was put back, in the subscription's thread. Raises as `Subscription.deliver_all`."""
        self._due = False
        if self._second is None:
            self._open()
        if self._second is not None and self._second.is_gone():
            self.drop()
        if self._second is not None:
            self._second.deliver_all()

    def _open(self) -> None:
        """Where it cannot be had now, the subscription goes on without it, and it is tried again."""
        self._try_at_s = time.monotonic() + _TRY_AGAIN_S
        if self._attachment.writer.words[layout.STATE] != layout.OPEN:
            return  # the channel itself goes on while the writer waits for its disk
        second = self._owner.second()
        try:
            second.open()
        except (OSError, KeyopError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log.error("%s/%s: what is put back waits: %s", self._owner.channel, self._owner.id, error)
            return
        self._try_at_s = 0.0
        self._complaint = ""
        self._second = second
        if self._stopping:
            second.stop()

    def drop(self) -> None:
        """The channel was deleted, and what was put back with it."""
        second, self._second = self._second, None
        if second is not None:
            second.close()

    def begin_again(self) -> None:
        """After trouble: the message under way first."""
        if self._second is not None:
            self._second.begin_again()

    def stop(self) -> None:
        """As `Subscription.stop`."""
        self._stopping = True
        if self._second is not None:
            self._second.stop()

    def close(self, *, forget: bool = False, deadline: float | None = None) -> None:
        """As `Subscription.close`."""
        if self._second is not None:
            self._second.close(forget=forget, deadline=deadline)
        elif forget and self._file.exists():
            item = entry.encode(entry.FORGET, self._channel.encode(), self._owner.id.encode())
            self._attachment.transact(transaction(item), self._channel, deadline)
        self._second = None
