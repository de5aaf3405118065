"""Message ids: UUID version 7 (RFC 9562), so that they sort by time."""

from __future__ import annotations

import os
import random
import threading
import time

try:
    import uuid_utils
except ImportError:
    HAVE_UUID_UTILS = False
else:
    HAVE_UUID_UTILS = True


class Version7:
    """UUIDs of version 7 in the standard library alone; ascending within one process, also within a millisecond.

    The 74 bits that are not time are random once a millisecond and count up inside it by random steps (RFC 9562,
    section 6.2, method 2).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._tail = 0
        # A child would go on with its parent's numbers.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0

    def new(self) -> str:
        """A new id in its usual spelling, 36 characters in lower case."""
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # The top bit is left free, so that counting up cannot run over.
                self._tail = random.getrandbits(73)
            else:
                self._tail += 1 + random.getrandbits(32)
            return _spell(self._last_ms, self._tail)


def _spell(ms: int, tail: int) -> str:
    text = f"{ms & 0xFFFF_FFFF_FFFF:012x}7{tail >> 62:03x}{1 << 63 | tail & 0x3FFF_FFFF_FFFF_FFFF:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


if HAVE_UUID_UTILS:
    # Its generator lives in Rust and would give a forked child its parent's numbers again.
    os.register_at_fork(after_in_child=uuid_utils.reseed_rng)

    _uuid7 = uuid_utils.uuid7

    def new_id() -> str:
        """A new message id."""
        return str(_uuid7())

else:
    new_id = Version7().new
