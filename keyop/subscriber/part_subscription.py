"""One of several subscriptions that share the work of an id: it reads the whole channel and handles its part.

Its cursor passes over what is another part's. The writer keeps one cursor for each part, and the least of them is the
id's offset.
"""

from __future__ import annotations

from typing import Any, Self

from keyop.attachment.attachment import Attachment
from keyop.messages.envelope import decode_line, decode_line_raw
from keyop.messages.message import Message
from keyop.messages.payload_types import PayloadTypes
from keyop.storage.segment_reader import Batch
from keyop.subscriber.options import SubscribeOptions
from keyop.subscriber.share import Share
from keyop.subscriber.subscription import Invoke, Subscription


class PartSubscription(Subscription):
    """See `Subscription`."""

    def __init__(
        self,
        attachment: Attachment,
        types: PayloadTypes,
        channel: str,
        id: str,
        invoke: Invoke,
        options: SubscribeOptions,
    ) -> None:
        super().__init__(attachment, types, channel, id, invoke, options)
        self._handler = invoke
        self._share = Share(options.part, options.parts, options.key)
        self._line = b""

    def second(self) -> Self:
        """As `Subscription.second`."""
        self._invoke = self._handler
        return super().second()

    def _handle_batch(self, batch: Batch) -> None:
        raw = bool(self._types) or self._options.require_type
        decode = decode_line_raw if raw else decode_line
        leaves = self._share.leaves
        offset = batch.start
        self._stopwatch.begin_batch(offset)
        try:
            for line in batch.lines:
                if not leaves(line):
                    self._offset = offset
                    self._handle_specially(line, offset, decode(line), raw)
                offset += len(line) + 1
                self._offset = offset
                if self._interrupted:
                    break
        finally:
            self._handling.message = None
            self._move(self._offset, self._left_attempts)
            self._left_attempts = 0

    def _is_another_parts(self, message: Message[Any], line: bytes, undecodable: str) -> bool:
        self._invoke = self._handler
        if not undecodable:
            try:
                return not self._share.owns(message, line)
            except BaseException:
                self._invoke = self._key_then_handler
                self._line = line
        return not self._share.owns_by_id(message, line)

    def _key_then_handler(self, message: Message[Any]) -> object:
        """For a message whose key could not be had: that is what its attempts fail by."""
        self._share.owns(message, self._line)
        return self._handler(message)
