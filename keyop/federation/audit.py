"""Lines of the audit log: who came and went, which messages passed in which direction, what was refused and why.

They go through the ring to the writer, who owns the file. They never hold up a message: where the ring has no room they
wait, and where too many wait they are dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Literal

from keyop.attachment.attachment import Attachment
from keyop.errors import KeyopError, PayloadError
from keyop.messages.json_text import quote
from keyop.protocol import entry

Direction = Literal["inbound", "outbound"]

_MAX_LINES_BYTES = 64 * 1024
# A line has to fit into the ring, whatever a peer sends: thousands of names of channels, an id of a megabyte.
_MAX_DETAIL = 4_096
MAX_ID = 200
_MAX_WAITING_BYTES = 1 << 20
_GATHER_S = 0.05
_SAY_EVERY_S = 5.0


class Audit:
    """Writes audit records for one hub or client process."""

    def __init__(
        self, attachment: Attachment, logger: logging.Logger, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """``loop``: where it works; without one every record is handed over at once."""
        self._attachment = attachment
        self._log = logger
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = 0
        """Records that could not be handed to the writer."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._said_s = float("-inf")

    def event(
        self,
        event: str,
        *,
        message_id: str = "",
        channel: str = "",
        direction: Direction | None = None,
        peer: str = "",
        peer_addr: str = "",
        detail: str = "",
    ) -> None:
        """Write one record. Empty keys are left out."""
        record = {
            "ts": _now(),
            "event": event,
            "message_id": message_id,
            "channel": channel,
            "direction": direction,
            "peer": peer,
            "peer_addr": peer_addr,
            "detail": detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL]}...",
        }
        text = json.dumps({key: value for key, value in record.items() if value}, separators=(",", ":"))
        self._send(text.encode() + b"\n")
        self.flush()

    def forwarded(
        self, direction: Direction, peer: str, messages: Iterable[tuple[str, str]], took_s: float | None = None
    ) -> None:
        """Write a ``forward`` record for each message (channel, id); ``took_s``: how long its batch was under way."""
        head = f'{{"ts":"{_now()}","event":"forward","message_id":'.encode()
        tail = b',"direction":"%b","peer":%b' % (direction.encode(), _text(peer))
        tail += b"}\n" if took_s is None else b',"send_duration_ms":%b}\n' % f"{took_s * 1000:.3f}".encode()
        lines: list[bytes] = []
        length = 0
        last_channel, rest = "", b',"channel":""' + tail
        for channel, id in messages:
            if channel != last_channel:
                last_channel, rest = channel, b',"channel":' + _text(channel) + tail
            line = head + _text(id[:MAX_ID]) + rest
            lines.append(line)
            length += len(line)
            if length > _MAX_LINES_BYTES:
                self._send(b"".join(lines))
                lines.clear()
                length = 0
        if lines:
            self._send(b"".join(lines))

    def _send(self, lines: bytes) -> None:
        if self._waiting_bytes + len(lines) > _MAX_WAITING_BYTES:
            self.flush()
        if self._waiting_bytes + len(lines) > _MAX_WAITING_BYTES:
            self._drop(lines)
            return
        self._waiting.append(lines)
        self._waiting_bytes += len(lines)
        if self._loop is None or self._waiting_bytes >= _MAX_LINES_BYTES:
            self.flush()
        elif self._timer is None:
            # Of messages not each by itself: that would wake the writer once more for every one.
            self._timer = self._loop.call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Hand over what waits, as far as the ring has room: now and then, and at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            count = self._next_count()
            lines = b"".join(islice(self._waiting, count))
            try:
                position = self._attachment.try_send(entry.TRANSACTION.pack(0) + entry.encode(entry.AUDIT, data=lines))
            except KeyopError:
                return
            if position is None:
                return
            # Nobody asks for an answer to it.
            self._attachment.replies.expected.discard(position)
            for _ in range(count):
                self._waiting.popleft()
            self._waiting_bytes -= len(lines)

    def _next_count(self) -> int:
        """How many of those that wait go into one transaction."""
        length = 0
        for count, lines in enumerate(self._waiting):
            length += len(lines)
            if count and length > _MAX_LINES_BYTES:
                return count
        return len(self._waiting)

    def _drop(self, lines: bytes) -> None:
        self.dropped += lines.count(b"\n")
        now_s = time.monotonic()
        if now_s - self._said_s > _SAY_EVERY_S:
            self._said_s = now_s
            self._log.warning("%d audit records were dropped: the writer does not keep up", self.dropped)


def _text(value: str) -> bytes:
    try:
        return quote(value)
    except PayloadError:
        return json.dumps(value).encode()  # a lone surrogate, which a peer may send


def _now() -> str:
    second, microsecond = divmod(time.time_ns() // 1_000, 1_000_000)
    return f"{_second_text(second)}.{microsecond:06}Z"


@lru_cache(maxsize=2)
def _second_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
