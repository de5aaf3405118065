"""A subscriber whose handler's publishes commit together with the move of its offset.

The cursor lives in the writer's table; every move names the old value, and one whose old value is not the current one
is refused whole: a killed predecessor's transaction was still in its ring. While there is a backlog the outputs of
several messages go into one transaction, a bundle; the next message is handled before the last bundle is committed.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple, Self

from keyop.attachment.held_cursor import transaction
from keyop.errors import KeyopError
from keyop.messages.envelope import BadLine, decode_line, decode_line_raw
from keyop.messages.message import Message
from keyop.protocol import entry, reply
from keyop.publishing.handling import Handling, handling
from keyop.publishing.outbox import Outbox
from keyop.storage.segment_reader import Batch
from keyop.subscriber.delivery import Answer, Run
from keyop.subscriber.subscription import Subscription

_BUNDLE_BYTES = 48 * 1024
_BUNDLE_MESSAGES = 256
_BUNDLE_S = 0.002
_BUNDLES_IN_FLIGHT = 8


class Rewound(Exception):
    """A bundle was refused: reading goes on from the writer's cursor."""


class _Sent(NamedTuple):
    position: int
    old: int
    new: int
    messages: int


class ExactlyOnceSubscription(Subscription):
    """See `Subscription`; ``publisher`` is the one whose publishes join the handler's transaction."""

    publisher: object = None

    def second(self) -> Self:
        """As `Subscription.second`."""
        second = super().second()
        second.publisher = self.publisher
        return second

    def open(self) -> None:
        """As `Subscription.open`."""
        super().open()
        # Up to where is sent, and up to where the writer has committed.
        self._cursor = self._committed = self._granted
        self._entries: list[bytes] = []
        self._bytes = 0
        self._messages = 0
        self._handled = 0
        self._began_s = 0.0
        self._sent: deque[_Sent] = deque()
        self._alone_until = 0
        self._refused: tuple[int, str] | None = None

    # ---- the loop

    def _handle_batch(self, batch: Batch) -> None:
        try:
            self._handle_lines(batch)
            self._flush()
        except Rewound:
            self._tail.seek(self._offset)

    def _handle_lines(self, batch: Batch) -> None:
        raw = bool(self._types) or self._options.require_type
        decode = decode_line_raw if raw else decode_line
        offset = batch.start
        self._stopwatch.begin_batch(offset)
        try:
            for line in batch.lines:
                envelope = decode(line)
                self._offset = offset
                message = None
                if type(envelope) is not BadLine and not self._is_special(offset):
                    message, undecodable = self._message(envelope, offset, raw)  # type: ignore[arg-type]
                    message = None if undecodable else message
                if message is None:
                    self._flush()
                    self._handle_specially(line, offset, envelope, raw)
                else:
                    self._first_attempt(message, offset, line)
                self._offset = offset = offset + len(line) + 1
                if self._bundle_is_full(offset):
                    self._flush()
                if self._interrupted:
                    break
        finally:
            self._move(self._offset, self._left_attempts)
            self._left_attempts = 0
            self._count("handled", self._handled)
            self._handled = 0

    def _is_special(self, offset: int) -> bool:
        return (offset == self._carried[0] and bool(self._carried[1])) or (
            self._refused is not None and offset == self._refused[0]
        )

    def _first_attempt(self, message: Message[Any], offset: int, line: bytes) -> None:
        self._move(offset, 1)
        outbox = Outbox(self.publisher, is_handler=True)
        try:
            self._call(message, outbox)
        except BaseException as error:
            self._flush()
            self._try_again(message, line, error)
        else:
            self._add(outbox, offset + len(line) + 1)
            self._handled += 1

    def _call(self, message: Message[Any], outbox: Outbox) -> None:
        """Run the handler with its publishes going into the outbox."""
        token = handling.set(Handling(message, outbox))
        try:
            self._stopwatch.invoke(self._invoke, message)
        finally:
            outbox.open = False
            handling.reset(token)

    @property
    def done_with(self) -> int:
        """As `Subscription.done_with`: what is sent and not committed yet would come again."""
        try:
            return self._sent[0].old
        except IndexError:
            return self._cursor

    # ---- bundles

    def _add(self, outbox: Outbox, behind: int) -> None:
        if not self._messages:
            self._began_s = time.perf_counter()
        self._entries += outbox.entries
        self._bytes += outbox.size_bytes
        self._messages += 1
        self._bundle_new = behind

    def _bundle_is_full(self, offset: int) -> bool:
        return (
            self._bytes > _BUNDLE_BYTES
            or self._messages >= _BUNDLE_MESSAGES
            or offset <= self._alone_until
            or bool(self._messages and time.perf_counter() - self._began_s > _BUNDLE_S)
        )

    def _flush(self) -> None:
        """Send the bundle. Raises `Rewound` if an earlier one was refused meanwhile."""
        self._settle(wait=len(self._sent) >= _BUNDLES_IN_FLIGHT or self._alone_until > self._cursor)
        if not self._messages:
            return
        old, new, messages = self._cursor, self._bundle_new, self._messages
        self._entries.append(self._held.move_entry(old, new))
        position = self._attachment.send(transaction(b"".join(self._entries), entry.SYNC))
        self._entries.clear()
        self._bytes = self._messages = 0
        self._cursor = new
        self._sent.append(_Sent(position, old, new, messages))

    def _settle(self, *, wait: bool) -> None:
        """Look at what was committed; with ``wait``, at all that was sent. Raises `Rewound`."""
        while self._sent:
            sent = self._sent[0]
            if not self._attachment.is_committed(sent.position):
                if not wait:
                    return
                self._attachment.wait(sent.position)
            self._sent.popleft()
            for code, value in self._attachment.replies.answers(sent.position):
                if code != reply.OK:
                    self._rewind(sent, code, value)
            self._committed = sent.new

    @property
    def offset(self) -> int:
        """Up to where output and offset are committed."""
        return self._committed

    def _rewind(self, refused: _Sent, code: int, value: int) -> None:
        """Whatever was sent behind a refused bundle is refused, too; go on from the writer's cursor."""
        while self._sent:
            behind = self._sent.popleft()
            self._attachment.wait(behind.position)
            self._attachment.replies.answers(behind.position)
        self._entries.clear()
        self._bytes = self._messages = 0
        at = refused.old
        if code == reply.STALE_CURSOR:
            at = value
        elif refused.messages == 1:
            self._refused = (at, str(reply.refusal(code, value, self.channel)))
        else:
            self._alone_until = refused.new  # one by one, to see whose output it is
        self._cursor = self._committed = self._offset = at
        raise Rewound

    def _begin_anew(self) -> None:
        while self._sent:
            sent = self._sent.popleft()
            self._attachment.wait(sent.position)
            self._attachment.replies.answers(sent.position)
        self._entries.clear()
        self._bytes = self._messages = 0
        self._refused = None
        self._alone_until = 0
        super()._begin_anew()
        self._cursor = self._committed = self._granted

    def _caught_up(self) -> None:
        try:
            self._settle(wait=True)
            if self._tail.offset > self._cursor:
                # Past something that cannot be delivered.
                self._offset = self._bundle_new = self._tail.offset
                self._messages = 1
                self._flush()
                self._settle(wait=True)
        except Rewound:
            self._tail.seek(self._offset)

    # ---- attempts, each committed before the next message

    def _follow(self, answer: Answer, message: Message[Any], line: bytes) -> None:
        if self._refused is not None and self._refused[0] == self._offset and isinstance(answer, Run):
            text, self._refused = self._refused[1], None
            self._count("failed", 1)
            answer = self._delivery.failed(text, time.monotonic())
        self._settle(wait=True)
        self._behind = self._offset + len(line) + 1
        super()._follow(answer, message, line)

    def _attempt(self, attempt: int, message: Message[Any]) -> Answer:
        message = message.again(attempt)
        self._move(self._offset, attempt)
        outbox = Outbox(self.publisher, is_handler=True)
        try:
            self._call(message, outbox)
            self._commit_alone(b"".join(outbox.entries))
        except Rewound:
            raise
        except BaseException as error:
            return self._failed(error)
        self._count("handled", 1)
        return self._delivery.succeeded()

    def _commit_alone(self, entries: bytes) -> None:
        """Commit one message's output and its move. Raises the refusal, or `Rewound` if the cursor is another."""
        move = self._held.move_entry(self._cursor, self._behind)
        position = self._attachment.send(transaction(entries + move, entry.SYNC))
        self._attachment.wait(position)
        for code, value in self._attachment.replies.answers(position):
            if code == reply.STALE_CURSOR:
                self._rewind(_Sent(position, self._cursor, self._behind, 1), code, value)
            if code != reply.OK:
                raise reply.refusal(code, value, self.channel)
        self._cursor = self._committed = self._behind

    def _commit_dead_letter(self, append: bytes, channel: str, behind: int) -> None:
        self._behind = behind
        self._commit_alone(append)

    def close(self, *, forget: bool = False, deadline: float | None = None) -> None:
        """As `Subscription.close`, after all bundles are committed."""
        try:
            self._flush()
            self._settle(wait=True)
        except (Rewound, KeyopError):
            pass  # what was refused is handled again by whoever comes next
        super().close(forget=forget, deadline=deadline)
