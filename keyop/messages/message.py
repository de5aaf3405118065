"""What a handler is given."""

from __future__ import annotations

import reprlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic

from keyop.messages.envelope import Envelope
from keyop.messages.timestamps import parse_ns

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", covariant=True, default=Any)  # a plain ``Message`` passes `mypy --strict`
else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)


class Message(Generic[T_co]):
    """One message as a subscriber sees it. It cannot be changed.

    Only what a handler asks for is computed: the message holds the envelope as it was read.
    """

    __slots__ = ("_attempt", "_envelope", "_offset", "_payload")

    def __init__(self, envelope: Envelope, payload: T_co, offset: int = 0, attempt: int = 1) -> None:
        """`payload` is the envelope's, made into what the handler wants."""
        self._envelope = envelope
        self._payload = payload
        self._offset = offset
        self._attempt = attempt

    def again(self, attempt: int) -> Message[T_co]:
        """The same message at another attempt."""
        return Message(self._envelope, self._payload, self._offset, attempt)

    @property
    def payload(self) -> T_co:
        """What was published: a JSON value, or an object of the class registered for its type."""
        return self._payload

    @property
    def id(self) -> str:
        """A UUID (version 7 from us and from newer Go releases), the same on every host and at every attempt."""
        return self._envelope.id

    @property
    def ts(self) -> datetime:
        """When it was published, by the publisher's clock, in UTC, to the microsecond.

        The first moment of the year 1 where the envelope has no time or one that cannot be read; see ts_text.
        """
        ns = parse_ns(self._envelope.ts)
        if ns is None:
            return _NO_TIME
        try:
            return _EPOCH + timedelta(microseconds=ns // 1000)
        except OverflowError:
            return _NO_TIME

    @property
    def ts_text(self) -> str:
        """The time as it stands in the envelope, RFC 3339 with up to nine fraction digits."""
        return self._envelope.ts

    @property
    def channel(self) -> str:
        """Where it was published."""
        return self._envelope.channel

    @property
    def origin(self) -> str:
        """The name of the instance that published it. Free text: do not decide anything on it alone."""
        return self._envelope.origin

    @property
    def payload_type(self) -> str:
        """The name of the payload's type, such as `com.example.Order`; may be empty."""
        return self._envelope.payload_type

    @property
    def correlation_id(self) -> str:
        """What ties it to the messages that caused it; may be empty."""
        return self._envelope.correlation_id

    @property
    def service_name(self) -> str:
        """Which service published it; may be empty."""
        return self._envelope.service_name

    @property
    def offset(self) -> int:
        """Where its record begins in the channel, in bytes."""
        return self._offset

    @property
    def attempt(self) -> int:
        """1 when a handler sees it for the first time, one more with each retry."""
        return self._attempt

    def __repr__(self) -> str:
        return (
            f"<Message {self.channel} {self.id} offset={self._offset} attempt={self._attempt} ts={self.ts_text}"
            f" payload_type={self.payload_type!r} payload={reprlib.repr(self._payload)}>"
        )
