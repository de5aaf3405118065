"""Every limit of a connection between hub and client, in one place.

What a peer may make this process keep is the sum of these numbers and nothing else: a connection that has not said its
handshake may hold `handshake_bytes`, one that has may hold `message_bytes` and `window_bytes` in each direction.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1_048_576
ROUTE_ROOM_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost. Each has its key in section ``federation``, unless it says otherwise."""

    max_batch_bytes: int = 4 * MIB
    """Longest batch to send, and longest record to accept, in bytes without the record's four bytes of length."""

    max_line_bytes: int = 10_485_759
    """Longest record whatever `max_batch_bytes` says: a line on disk, without its newline. No key: readers of the
    files, those of the Go program too, hold no more."""

    max_message_bytes: int = 32 * MIB
    """Longest message of a peer that has said its handshake; beyond it the connection is closed with 1009. It may come
    in fragments of any size."""

    max_records: int = 262_144
    """Most records in one message. A record may be empty, so `max_message_bytes` alone would allow eight million."""

    handshake_bytes: int = 65_536
    """Longest message of a peer that has not."""

    subscribe_names: int = 4_096
    """Most channels that a peer may ask for."""

    handshake_timeout_s: float = 10.0
    """Seconds for the other side's handshake."""

    ack_timeout_s: float = 60.0
    """Seconds for the acknowledgement of the oldest batch in flight. A peer whose disk is full stalls, and means to."""

    drain_timeout_s: float = 10.0
    """Seconds for what is under way when this side stops."""

    window_batches: int = 8
    """Batches in flight to a peer that can take several, and batches of a peer that wait for their commit."""

    window_bytes: int = 8 * MIB
    """Bytes in flight, and bytes that wait for their commit, at which no further batch is begun."""

    unsent_acks: int = 1_024
    """Acknowledgements that may wait because the peer does not read them."""

    @property
    def record_bytes(self) -> int:
        """Longest record to accept or send, in bytes. The two names that taking it over adds still have room."""
        return min(self.max_batch_bytes, self.max_line_bytes - ROUTE_ROOM_BYTES)
