"""A handler for tests."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from keyop import Message

DEADLINE_S = 30.0


class Inbox:
    """A handler that keeps what it gets, and fails when told to."""

    def __init__(self, fail: Callable[[Message[Any]], None] | None = None) -> None:
        self.messages: queue.Queue[Message[Any]] = queue.Queue()
        self._fail = fail

    def __call__(self, message: Message[Any]) -> None:
        self.messages.put(message)
        if self._fail is not None:
            self._fail(message)

    def next(self) -> Message[Any]:
        return self.messages.get(timeout=DEADLINE_S)

    def take(self, count: int) -> list[Any]:
        return [self.next().payload for _ in range(count)]
