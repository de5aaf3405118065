"""From what a call to ``publish`` says to a line of JSON."""

from __future__ import annotations

from typing import Any

from keyop.errors import MessageTooLarge
from keyop.messages.envelope import EnvelopeEncoder
from keyop.messages.payload_types import PayloadTypes
from keyop.names import check_publish_channel
from keyop.publishing.handling import handling
from keyop.publishing.publish_context import current


class Envelopes:
    """Makes the envelopes of one messenger. Any number of threads may use it."""

    def __init__(
        self, types: PayloadTypes, origin: str, max_message_bytes: int, limit_key: str = "storage.max_message_bytes"
    ) -> None:
        self._types = types
        self._encoder = EnvelopeEncoder(origin)
        self._max_message_bytes = max_message_bytes
        self._limit_key = limit_key
        self._channels: dict[str, bytes] = {}

    def make(
        self, channel: str, payload: Any, payload_type: str | None, correlation_id: str | None, service_name: str | None
    ) -> tuple[str, bytes, bytes]:
        """(message id, channel, line and newline). Raises `ChannelNameError`, `PayloadError`, `MessageTooLarge`."""
        name = self._channels.get(channel)
        if name is None:
            name = check_publish_channel(channel).encode()
            self._channels[channel] = name
        text, type_name = self._types.encode(payload, payload_type)
        if correlation_id is None or service_name is None:
            correlation_id, service_name = _inherit(correlation_id, service_name)
        message_id, line = self._encoder.encode(channel, text, type_name, correlation_id, service_name)
        if len(line) > self._max_message_bytes:
            raise MessageTooLarge(
                f"channel {channel!r}: the envelope has {len(line)} bytes, the limit ({self._limit_key}) "
                f"is {self._max_message_bytes}; put the bulk into a file and publish its name"
            )
        return message_id, name, line


def _inherit(correlation_id: str | None, service_name: str | None) -> tuple[str, str]:
    """What the call does not say: from ``context()``, or inside a handler the message's correlation id, or its id."""
    around = current.get()
    if service_name is None:
        service_name = around.service_name
    if correlation_id is None:
        correlation_id = around.correlation_id
        if not correlation_id:
            under_way = handling.get()
            message = under_way.message if under_way is not None else None
            if message is not None:
                correlation_id = message.correlation_id or message.id
    return correlation_id, service_name
