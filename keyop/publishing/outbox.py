"""Appends that are collected for one transaction: of an ``atomic()`` block, or of an exactly-once handler."""

from __future__ import annotations

from keyop.errors import AtomicError, MessageTooLarge

# The attachment takes 64 MiB; what the transaction itself needs is within the rest.
MAX_BYTES = (64 << 20) - 4096


class Outbox:
    """Entries to be committed together. ``owner`` is the messenger whose publishes it takes."""

    __slots__ = ("entries", "is_handler", "open", "owner", "size_bytes")

    def __init__(self, owner: object, *, is_handler: bool = False) -> None:
        self.owner = owner
        self.is_handler = is_handler
        self.entries: list[bytes] = []
        self.size_bytes = 0
        self.open = True

    def add(self, owner: object, entry: bytes) -> None:
        """Put an append into the transaction. Raises `AtomicError` where it does not belong here."""
        if owner is not self.owner:
            raise AtomicError(
                "an exactly-once handler publishes through the messenger that it subscribed with, not through another: "
                "only that one's messages commit together with the handler's offset"
            )
        if not self.open:
            raise AtomicError(
                "this transaction has ended: publish before the handler (or the atomic() block) returns, "
                "not from a thread or task that it leaves behind"
            )
        if self.size_bytes + len(entry) > MAX_BYTES:
            raise MessageTooLarge(
                f"a transaction takes {MAX_BYTES} bytes: it holds {self.size_bytes}, and this would add {len(entry)}"
            )
        self.entries.append(entry)
        self.size_bytes += len(entry)

    def abandon(self) -> None:
        """Drop what was collected and take nothing more: the process was forked, and this is the child."""
        self.open = False
        self.entries.clear()
