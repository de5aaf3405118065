"""Which messages of a channel are one part's, where several processes share the work of a subscriber id.

All parts have to come to the same about every message: nothing counts but the message itself, and how many parts there
are. A message whose key cannot be had is that part's whose its id says; it fails there, as if the handler had raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

from keyop.messages.message import Message

Key = Callable[[Message[Any]], str | None]
"""Messages with the same key are handled by the same part, in their order. None: the message's id."""

# As every release writes it. Nothing but what an id is made of: what a failing disk has lost reads as zeros.
_find_id = re.compile(rb'\{"v":1,"id":"([0-9A-Za-z._-]+)"').match


class Share:
    """Part ``part`` (counted from 0) of ``parts``."""

    def __init__(self, part: int, parts: int, key: Key | None) -> None:
        self._part = part
        self._parts = parts
        self._key = key

    def leaves(self, line: bytes) -> bool:
        """Whether a glance at a line is enough to leave it to another part."""
        if self._key is not None:
            return False
        found = _find_id(line)
        return found is not None and not self._is_mine(found[1])

    def owns(self, message: Message[Any], line: bytes) -> bool:
        """Whether a message is this part's. Raises what the key raises."""
        key = self._key(message) if self._key is not None else None
        if key is None:
            return self.owns_by_id(message, line)
        if not isinstance(key, str):
            raise TypeError(f"the key of a message is a str or None, not {key!r}")
        return self._is_mine(_bytes(key))

    def owns_by_id(self, message: Message[Any], line: bytes) -> bool:
        """Whether a message without a key is this part's. Where a line names two ids, all parts take the same one."""
        found = _find_id(line)
        return self._is_mine(found[1] if found is not None else _bytes(message.id))

    def _is_mine(self, text: bytes) -> bool:
        return crc32(text) % self._parts == self._part


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
