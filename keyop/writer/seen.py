"""Which messages from peers stand in the directory already: the last look before a line is committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from keyop.protocol.inbound import line_hash
from keyop.storage.segments import MAX_LINE_BYTES, list_segments

# So many ids of a channel are read back when the first transaction from a peer comes for it: a peer that had no answer
# sends again what it sent last. Older ones are looked up by hub and client before they hand a message over.
TAIL_IDS = 10_000
_STEP_BYTES = 1 << 20


class SeenIds:
    """Hashes of the ids received last, of all channels; the oldest goes when there is no room."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._hashes: set[int] = set()
        self._order: deque[int] = deque()
        self._loaded: set[bytes] = set()

    def load(self, channel: bytes, directory: Path) -> None:
        """Read the tail of a channel, if that was not done yet. Raises `OSError`."""
        if channel in self._loaded:
            return
        newest_first = list(_tail_hashes(directory, min(TAIL_IDS, self._size)))
        for hash in reversed(newest_first):
            self.add(hash)
        self._loaded.add(channel)

    def clear(self) -> None:
        """A channel was deleted: what was in it is not there any more. The tails of all others are read again."""
        self._hashes.clear()
        self._order.clear()
        self._loaded.clear()

    def __contains__(self, hash: int) -> bool:
        return hash in self._hashes

    def add(self, hash: int) -> None:
        """Remember one. Seeing it again does not make it younger."""
        if hash not in self._hashes:
            self._hashes.add(hash)
            self._order.append(hash)
            if len(self._order) > self._size:
                self._hashes.discard(self._order.popleft())

    def unseen(self, lines: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int]], int]:
        """Of lines (hash, start, end) those that are new, neighbours joined, and how many are not.

        The new ones count as seen from here on.
        """
        runs: list[tuple[int, int]] = []
        known = 0
        for hash, start, end in lines:
            if hash in self._hashes:
                known += 1
                continue
            self.add(hash)
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((start, end))
        return runs, known


def _tail_hashes(directory: Path, count: int) -> Iterator[int]:
    """The ids of a channel's last lines, newest first."""
    for segment in reversed(list_segments(directory)[0]):
        for line in _lines_backwards(segment.path):
            hash = line_hash(line)
            if hash is not None:
                yield hash
                count -= 1
                if not count:
                    return


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file from its end, without newlines; what is longer than a line may be is passed over."""
    with path.open("rb") as file:
        at = file.seek(0, 2)
        rest = b""
        while at > 0:
            length = min(_STEP_BYTES, at)
            at -= length
            file.seek(at)
            first, *lines = (file.read(length) + rest).split(b"\n")
            yield from reversed(lines)
            rest = first if len(first) <= MAX_LINE_BYTES else b""
        yield rest
