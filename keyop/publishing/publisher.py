"""From a payload to a transaction in the ring: the publishing half of a messenger."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from keyop.attachment.attachment import Attachment
from keyop.deadline import deadline_in
from keyop.errors import AtomicError
from keyop.messages.payload_types import PayloadTypes
from keyop.names import check_publish_channel
from keyop.protocol import entry
from keyop.protocol.entry import APPEND, ENTRY, SINGLE, SYNC
from keyop.publishing.envelopes import Envelopes
from keyop.publishing.handling import Handling, handling
from keyop.publishing.outbox import Outbox
from keyop.publishing.publish_times import ATOMIC, PublishTimes

_pack_single = SINGLE.pack
_pack_entry = ENTRY.pack


class Publisher:
    """Publishes for one messenger. Any number of threads may use it."""

    def __init__(self, attachment: Attachment, types: PayloadTypes, origin: str, *, always_sync: bool) -> None:
        """``always_sync``: this process asked for strict publishing itself, whatever the writer's mode."""
        self.attachment = attachment
        self.times = PublishTimes(attachment)
        self._envelope = Envelopes(types, origin, attachment.settings.storage.max_message_bytes).make
        self._always_sync = always_sync
        # Channels to which something was committed: the writer has nothing against them.
        self._proven: set[str] = set()

    def publish(
        self,
        channel: str,
        payload: Any,
        payload_type: str | None,
        correlation_id: str | None,
        service_name: str | None,
        sync: bool | None,
        timeout: float | None,
    ) -> str:
        """Publish one message and return its id: strict, when it is on the device; periodic, when it is handed over."""
        message_id, transaction, must_sync = self.prepare(
            channel, payload, payload_type, correlation_id, service_name, sync
        )
        if transaction is not None:
            self._commit(transaction, channel, must_sync, timeout)
        return message_id

    def publish_batch(
        self,
        channel: str,
        payloads: Iterable[Any],
        payload_type: str | None,
        correlation_id: str | None,
        service_name: str | None,
        sync: bool | None,
        timeout: float | None,
    ) -> list[str]:
        """Publish several messages to one channel in one transaction; their ids, in order."""
        ids, transaction, must_sync = self.prepare_batch(
            channel, payloads, payload_type, correlation_id, service_name, sync
        )
        if transaction is not None:
            self._commit(transaction, channel, must_sync, timeout)
        return ids

    def commit_outbox(self, outbox: Outbox, timeout: float | None) -> None:
        """Commit what an ``atomic()`` block collected, synced in every mode."""
        transaction = self.outbox_transaction(outbox)
        if transaction is not None:
            self._commit(transaction, "", True, timeout)

    # ---- making transactions

    def prepare(
        self,
        channel: str,
        payload: Any,
        payload_type: str | None,
        correlation_id: str | None,
        service_name: str | None,
        sync: bool | None,
    ) -> tuple[str, bytes | None, bool]:
        """A message as a transaction: (its id, the transaction, whether it must be synced).

        No transaction: the message joined the one under way, of ``atomic()`` or of an exactly-once handler.
        """
        message_id, name, line = self._envelope(channel, payload, payload_type, correlation_id, service_name)
        under_way = handling.get()
        if under_way is not None and under_way.outbox is not None:
            under_way.outbox.add(self, _pack_entry(APPEND, len(name), 0, 0, len(line), 0) + name + line)
            return message_id, None, False
        must_sync = self._always_sync if sync is None else sync
        head = _pack_single(SYNC if must_sync else 0, APPEND, len(name), 0, 0, len(line), 0)
        return message_id, head + name + line, must_sync

    def prepare_batch(
        self,
        channel: str,
        payloads: Iterable[Any],
        payload_type: str | None,
        correlation_id: str | None,
        service_name: str | None,
        sync: bool | None,
    ) -> tuple[list[str], bytes | None, bool]:
        """Several messages as one transaction, like `prepare`."""
        ids = []
        lines = []
        name = check_publish_channel(channel).encode()
        for payload in payloads:
            message_id, name, line = self._envelope(channel, payload, payload_type, correlation_id, service_name)
            ids.append(message_id)
            lines.append(line)
        if not ids:
            return ids, None, False
        body = entry.encode(APPEND, name, data=b"".join(lines))
        under_way = handling.get()
        if under_way is not None and under_way.outbox is not None:
            under_way.outbox.add(self, body)
            return ids, None, False
        must_sync = self._always_sync if sync is None else sync
        return ids, entry.TRANSACTION.pack(SYNC if must_sync else 0) + body, must_sync

    @staticmethod
    def outbox_transaction(outbox: Outbox) -> bytes | None:
        """What an outbox collected as one transaction; None if that is nothing."""
        outbox.open = False
        return entry.TRANSACTION.pack(SYNC) + b"".join(outbox.entries) if outbox.entries else None

    # ---- committing them

    def _commit(self, transaction: bytes, channel: str, must_sync: bool, timeout: float | None) -> None:
        attachment = self.attachment
        deadline = deadline_in(timeout)
        began_ns = time.perf_counter_ns()
        position = attachment.send(transaction, deadline)
        if self.returns_early(position, channel, must_sync):
            return
        attachment.wait(position, deadline)
        self.committed(position, channel, must_sync, began_ns)

    def returns_early(self, position: int, channel: str, must_sync: bool) -> bool:
        """Whether a publish may return before the commit: periodic, and the writer has nothing against the channel."""
        return not must_sync and channel in self._proven and self.attachment.accepted(position)

    def committed(self, position: int, channel: str, must_sync: bool, began_ns: int) -> None:
        """The writer has taken the transaction: raises its refusal, if it was one.

        ``began_ns``: `perf_counter_ns` before it was sent.
        """
        self.attachment.replies.of(position, channel)
        self._proven.add(channel)
        if must_sync or self.attachment.writer.strict:
            self.times.note(channel or ATOMIC, began_ns)


def begin_atomic(publisher: Publisher) -> tuple[Outbox, Handling]:
    """A new outbox for an ``atomic()`` block. Raises `AtomicError` inside another one or an exactly-once handler."""
    around = handling.get()
    if around is not None and around.outbox is not None:
        raise AtomicError(
            "atomic() inside an exactly-once handler: the handler is a transaction already"
            if around.outbox.is_handler
            else "atomic() blocks do not nest"
        )
    outbox = Outbox(publisher)
    return outbox, Handling(around.message if around is not None else None, outbox)
