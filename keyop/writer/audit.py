"""Audit lines on their way from the rings to their file: appended when all messages are settled, or else dropped."""

from __future__ import annotations

import time

from keyop.storage.audit_file import AuditFile
from keyop.writer.log import Log

# More of them in one round than this are dropped: messages share the disk.
MAX_ROUND_BYTES = 1 << 20
_SAY_EVERY_S = 5.0


class Audit:
    """Counts what it drops, and says so now and then."""

    def __init__(self, file: AuditFile, log: Log) -> None:
        self._file = file
        self._log = log
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._said_s: dict[str, float] = {}
        self.dropped = 0
        """Lines dropped since the writer started."""

    def add(self, lines: bytes) -> None:
        """Take whole lines for the end of the round."""
        if self._waiting_bytes + len(lines) > MAX_ROUND_BYTES:
            self._drop(lines, "too many at once")
        else:
            self._waiting.append(lines)
            self._waiting_bytes += len(lines)

    def flush(self) -> None:
        """Append what the round brought."""
        lines = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        try:
            self._file.append(lines)
        except OSError as error:
            self._drop(lines, error.strerror or "")
            return
        try:
            self._file.rotate_if_full()
        except OSError as error:
            self._say("audit_not_rotated", why=error)

    @property
    def waiting(self) -> bool:
        """Whether there is anything to append."""
        return bool(self._waiting)

    def _drop(self, lines: bytes, why: str) -> None:
        self.dropped += lines.count(b"\n")
        self._say("audit_dropped", records=self.dropped, why=why)

    def _say(self, event: str, **more: object) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s.get(event, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said_s[event] = now_s
            self._log.warning(event, **more)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
