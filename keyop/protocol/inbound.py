"""Lines that came from a peer: what a hub or client adds so that the writer can leave out those it has seen before.

Hub and client are two processes that may receive the same message at the same time, so the last look is the writer's,
who takes everything in turn. It does not read lines; beside each stands a 64-bit hash of the message's id.
"""

from __future__ import annotations

import re
from _blake2 import blake2b  # `hashlib` would cost the writer 3.7 MiB for OpenSSL
from collections.abc import Iterator, Sequence
from struct import Struct

_COUNT = Struct("<I")
_LINE = Struct("<QI")  # hash of the id, length of the line with its newline
LINE_BYTES = _LINE.size
"""What each line adds to the entry beside itself."""

# As every release and this package write it; a line that begins otherwise comes from nobody who could send it again.
_find_id = re.compile(rb'\{"v":1,"id":"([^"\\]+)"').match


def id_hash(id: bytes) -> int:
    """64 bits that stand for a message id."""
    return int.from_bytes(blake2b(id, digest_size=8).digest(), "little")


def line_hash(line: bytes) -> int | None:
    """The hash of the id of a line that stands in a segment; None where it cannot be told at a glance."""
    found = _find_id(line)
    return id_hash(found[1]) if found else None


def pack(lines: Sequence[bytes], hashes: Sequence[int]) -> bytes:
    """The data of an INBOUND entry: whole lines, each with its newline, and the hash of each one's id."""
    table = b"".join(_LINE.pack(hash, len(line)) for hash, line in zip(hashes, lines, strict=True))
    return _COUNT.pack(len(lines)) + table + b"".join(lines)


def unpack(data: bytes) -> list[tuple[int, int, int]]:
    """(hash, start, end) of each line in ``data``. Raises ``ValueError`` if it is malformed."""
    if len(data) < _COUNT.size:
        raise ValueError("no count of lines")
    (count,) = _COUNT.unpack_from(data)
    first = _COUNT.size + count * _LINE.size
    if not count or first > len(data):
        raise ValueError(f"{count} lines do not fit")
    lines = list(_spans(data, count, first))
    if lines[-1][2] != len(data):
        raise ValueError("the lines do not fill the entry")
    return lines


def _spans(data: bytes, count: int, at: int) -> Iterator[tuple[int, int, int]]:
    for number in range(count):
        hash, length = _LINE.unpack_from(data, _COUNT.size + number * _LINE.size)
        end = at + length
        if not length or end > len(data) or data[end - 1 : end] != b"\n":
            raise ValueError(f"line {number} is not whole")
        yield hash, at, end
        at = end
