"""A messenger that publishes to a list: what a handler under test would have published."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from keyop.configuration.settings import StorageSettings
from keyop.errors import PayloadError
from keyop.messages.envelope import BadLine, Envelope, EnvelopeEncoder, decode_line_raw
from keyop.messages.json_text import encode_payload
from keyop.messages.message import Message
from keyop.messages.payload_types import PayloadTypes
from keyop.publishing.envelopes import Envelopes

ORIGIN = "test"
PLAIN_TYPE = "application/json"
_PLAIN = (dict, list, str, int, float, bool, type(None))


class Recorder:
    """The publishing half of `keyop.Messenger`, with its checks: names, types, payloads, sizes."""

    def __init__(self) -> None:
        self.messages: list[Message[Any]] = []
        """What was published, in order. Payloads are plain JSON, as another program would read them."""
        self.types = PayloadTypes()
        self._incoming = EnvelopeEncoder(ORIGIN)
        self._make = Envelopes(self.types, ORIGIN, StorageSettings().max_message_bytes).make

    is_closed = False

    def register_payload_type(self, name: str, kind: Any) -> None:
        """As `keyop.Messenger.register_payload_type`."""
        self.types.register(name, kind)

    def publish(
        self,
        channel: str,
        payload: Any,
        *,
        payload_type: str | None = None,
        correlation_id: str | None = None,
        service_name: str | None = None,
        sync: bool | None = None,
        timeout: float | None = None,
    ) -> str:
        """As `keyop.Messenger.publish`, at once."""
        message = self._message(channel, payload, payload_type, correlation_id, service_name)
        self.messages.append(message)
        return message.id

    def publish_batch(self, channel: str, payloads: Iterable[Any], **options: Any) -> list[str]:
        """As `keyop.Messenger.publish_batch`: all or none."""
        with self.atomic() as batch:
            return [batch.publish(channel, payload, **options) for payload in payloads]

    @contextlib.contextmanager
    def atomic(self, *, timeout: float | None = None) -> Iterator[Recorder]:
        """As `keyop.Messenger.atomic`: an exception in the block publishes nothing of it."""
        before = len(self.messages)
        try:
            yield self
        except BaseException:
            del self.messages[before:]
            raise

    def incoming(
        self, channel: str, payload: Any, payload_type: str | None, attempt: int, **texts: str
    ) -> Message[Any]:
        """A message as a subscriber would get it. Raises `PayloadError` for what would be a dead letter at once."""
        if payload_type is None and isinstance(payload, _PLAIN):
            payload_type = PLAIN_TYPE
        text, name = self.types.encode(payload, payload_type)
        try:
            known, value = self.types.decode(name, text)
        except ValueError as error:
            raise PayloadError(f"the payload is not a valid {name}, and would be a dead letter: {error}") from error
        if not known:
            value = self.types.decode_plain(text)
        return Message(self._envelope(channel, text, name, texts), value, 0, attempt)

    def incoming_object(
        self, channel: str, payload: Any, payload_type: str | None, attempt: int, **texts: str
    ) -> Message[Any]:
        """The same for a handler without an app, of which no types are known: an object arrives as it is."""
        if isinstance(payload, _PLAIN):
            return self.incoming(channel, payload, payload_type, attempt, **texts)
        envelope = self._envelope(channel, encode_payload(payload), payload_type or PLAIN_TYPE, texts)
        return Message(envelope, payload, 0, attempt)

    def _envelope(self, channel: str, text: bytes, payload_type: str, texts: dict[str, str]) -> Envelope:
        _id, line = self._incoming.encode(channel, text, payload_type, **texts)
        return _decoded(line)

    def knows(self, payload_type: str) -> bool:
        """Whether a class is registered for it."""
        try:
            return self.types.decode(payload_type, b"null")[0]
        except ValueError:
            return True

    def _message(self, channel: str, payload: Any, *options: str | None) -> Message[Any]:
        _id, _channel, line = self._make(channel, payload, *options)
        envelope = _decoded(line)
        return Message(envelope, self.types.decode_plain(bytes(envelope.payload)))


def _decoded(line: bytes) -> Envelope:
    envelope = decode_line_raw(line.rstrip(b"\n"))
    assert not isinstance(envelope, BadLine)
    return envelope


class AioRecorder:
    """The same for coroutine functions."""

    def __init__(self, recorder: Recorder) -> None:
        self.blocking = recorder
        """What plain functions publish with."""

    def register_payload_type(self, name: str, kind: Any) -> None:
        """As `keyop.Messenger.register_payload_type`."""
        self.blocking.register_payload_type(name, kind)

    async def publish(self, channel: str, payload: Any, **options: Any) -> str:
        """As `keyop.aio.Messenger.publish`."""
        return self.blocking.publish(channel, payload, **options)

    async def publish_batch(self, channel: str, payloads: Iterable[Any], **options: Any) -> list[str]:
        """As `keyop.aio.Messenger.publish_batch`."""
        return self.blocking.publish_batch(channel, payloads, **options)

    @contextlib.asynccontextmanager
    async def atomic(self, *, timeout: float | None = None) -> AsyncIterator[AioRecorder]:
        """As `keyop.aio.Messenger.atomic`."""
        with self.blocking.atomic(timeout=timeout):
            yield self
