"""A message as one line of JSON, in the form that it has on disk."""

from __future__ import annotations

from typing import Any

from keyop.messages.json_text import encode_payload
from keyop.messages.message import Message


def payload_json(message: Message[Any]) -> bytes:
    """The payload alone, without a newline."""
    return encode_payload(message.payload)


def message_json(message: Message[Any]) -> bytes:
    """The whole envelope, without a newline. Texts that are empty are left out, as in a channel."""
    fields: dict[str, object] = {
        "v": 1,
        "id": message.id,
        "ts": message.ts_text,
        "channel": message.channel,
        "origin": message.origin,
        "payload_type": message.payload_type,
    }
    if message.correlation_id:
        fields["correlation_id"] = message.correlation_id
    if message.service_name:
        fields["service_name"] = message.service_name
    fields["payload"] = message.payload
    return encode_payload(fields)
