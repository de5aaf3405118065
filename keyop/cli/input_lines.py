"""Lines of a descriptor as they come, in batches of a size that suits a transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_READ_BYTES = 256 * 1024
# With their envelopes that many stay below what a ring record holds.
_BATCH_LINES = 250
_BATCH_BYTES = 64 * 1024


class InputLine(NamedTuple):
    """A line without its newline; `text` is None if it was too long to be kept."""

    number: int
    """1 is the first; blank lines are counted, and left out."""
    text: bytes | None


class InputLines:
    """Iterates over batches; never waits for more than the next line."""

    def __init__(self, fd: int, max_line_bytes: int) -> None:
        self._fd = fd
        self._max_line_bytes = max_line_bytes
        self._number = 0
        self.bytes_read = 0
        """Of the input so far."""

    def __iter__(self) -> Iterator[list[InputLine]]:
        held: list[bytes] = []
        held_bytes = 0
        while data := os.read(self._fd, _READ_BYTES):
            self.bytes_read += len(data)
            first, *others = data.split(b"\n")
            held_bytes += len(first)
            held.append(first)
            if held_bytes > self._max_line_bytes:
                held = []
            if not others:
                continue
            whole = [b"".join(held) if held_bytes <= self._max_line_bytes else None, *others[:-1]]
            yield from self._batches(whole)
            held, held_bytes = [others[-1]], len(others[-1])
        if held_bytes:
            yield from self._batches([b"".join(held) if held_bytes <= self._max_line_bytes else None])

    def _batches(self, lines: list[bytes | None]) -> Iterator[list[InputLine]]:
        batch: list[InputLine] = []
        batch_bytes = 0
        for line in lines:
            self._number += 1
            if line is not None and not line.strip():
                continue
            length = len(line or b"")
            if batch and (len(batch) >= _BATCH_LINES or batch_bytes + length > _BATCH_BYTES):
                yield batch
                batch, batch_bytes = [], 0
            batch.append(InputLine(self._number, line))
            batch_bytes += length
        if batch:
            yield batch
