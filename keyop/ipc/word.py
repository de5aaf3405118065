"""64-bit values in u32 words, and the store-then-look fence."""

from __future__ import annotations

import threading

from keyop.ipc.layout import CHECK, MASK


def store64(words: memoryview, at: int, value: int) -> None:
    """Store a value as ``lo, hi, check``."""
    lo = value & MASK
    hi = value >> 32
    words[at] = lo
    words[at + 1] = hi
    words[at + 2] = lo ^ hi ^ CHECK


def load64(words: memoryview, at: int) -> int | None:
    """The value, or None while it is being written (or was never)."""
    lo: int = words[at]
    hi: int = words[at + 1]
    if words[at + 2] != lo ^ hi ^ CHECK:
        return None
    return lo | hi << 32


def distance(later: int, earlier: int) -> int:
    """How far one free-running u32 position is ahead of another; negative if it is behind."""
    return (((later - earlier) & MASK) ^ 0x8000_0000) - 0x8000_0000


class Fence:
    """Between one's own store and the look at another process's word.

    x86 and ARM both let a load overtake an earlier store to another address. Releasing and acquiring a lock that
    nobody else uses costs 0.1 µs and orders them.
    """

    __slots__ = ("_acquire", "_release")

    def __init__(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        self._acquire = lock.acquire
        self._release = lock.release

    def __call__(self) -> None:
        self._release()
        self._acquire()
