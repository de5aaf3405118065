"""What the code that runs now is handling: the message, and where an exactly-once handler's publishes go."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from keyop.messages.message import Message
from keyop.publishing.outbox import Outbox


class Handling:
    """The message whose handler runs in this context. Plain handlers share one object for all their messages."""

    __slots__ = ("message", "outbox")

    def __init__(self, message: Message[Any] | None = None, outbox: Outbox | None = None) -> None:
        self.message = message
        self.outbox = outbox


handling: ContextVar[Handling | None] = ContextVar("keyop_handling", default=None)
