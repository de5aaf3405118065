"""Every limit of a connection between hub and client, in one place.

What a peer may make this process keep is bounded by these numbers: a connection that has not said its handshake may
hold `handshake_bytes`; one that has, `max_message_bytes` for the message that comes in, and in each direction
`window_bytes` and one message more.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyop.configuration.settings import FederationSettings
from keyop.storage.segments import MAX_LINE_BYTES

MIB = 1_048_576
ROUTE_ROOM_BYTES = 4_096
# A record may be as long as a batch, and others may travel with it.
_COMPANY_BYTES = 2 * MIB
_default = FederationSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost. Each has its key in section ``federation``, unless it says otherwise."""

    max_batch_bytes: int = _default.max_batch_bytes
    """Longest batch to send, and longest record to accept, in bytes without the record's four bytes of length."""

    max_line_bytes: int = MAX_LINE_BYTES - 1
    """Longest record whatever `max_batch_bytes` says: a line on disk, without its newline. No key: readers of the
    files, those of the Go program too, hold no more."""

    max_message_bytes: int = _default.max_message_bytes
    """Longest message of a peer that has said its handshake; beyond it the connection is closed with 1009. It may come
    in fragments of any size."""

    max_records: int = _default.max_message_records
    """Most records in one message. A record may be empty, so `max_message_bytes` alone would allow eight million."""

    handshake_bytes: int = _default.max_handshake_bytes
    """Longest message of a peer that has not."""

    subscribe_names: int = _default.max_subscribe_names
    """Most channels that a peer may ask for."""

    max_unfinished: int = _default.max_unfinished
    """Most connections of a hub, of all peers together, that are not through with their handshake."""

    max_peer_connections: int = _default.max_peer_connections
    """Most connections of a hub with one certificate."""

    handshake_timeout_s: float = _default.handshake_timeout_ms / 1000
    """Seconds for the other side's handshake."""

    ack_timeout_s: float = _default.ack_timeout_ms / 1000
    """Seconds for the acknowledgement of the oldest batch in flight. A peer whose disk is full stalls, and means to."""

    drain_timeout_s: float = _default.drain_timeout_ms / 1000
    """Seconds for what is under way when this side stops."""

    ping_interval_s: float = _default.ping_interval_ms / 1000
    """Seconds between pings, which are the shell's business."""

    ping_timeout_s: float = _default.ping_timeout_ms / 1000
    """Seconds for the answer to a ping."""

    window_batches: int = _default.window_batches
    """Batches in flight to a peer that can take several, and batches of a peer that wait for their commit."""

    window_bytes: int = _default.window_bytes
    """Bytes in flight, and bytes that wait for their commit, at which no further batch is begun."""

    compression: bool = _default.compression
    """Whether to ask for compression, and to agree to it."""

    unsent_acks: int = 1_024
    """Acknowledgements that may wait because the peer does not read them. No key: a peer that keeps to the protocol
    has as many batches in flight at most, and waits for their acknowledgements."""

    @classmethod
    def of(cls, settings: FederationSettings) -> Limits:
        """Those of a configuration."""
        longest_record = min(settings.max_batch_bytes, MAX_LINE_BYTES)
        return cls(
            max_batch_bytes=settings.max_batch_bytes,
            max_message_bytes=max(settings.max_message_bytes, longest_record + _COMPANY_BYTES),
            max_records=settings.max_message_records,
            handshake_bytes=settings.max_handshake_bytes,
            subscribe_names=settings.max_subscribe_names,
            max_unfinished=settings.max_unfinished,
            max_peer_connections=settings.max_peer_connections,
            handshake_timeout_s=settings.handshake_timeout_ms / 1000,
            ack_timeout_s=settings.ack_timeout_ms / 1000,
            drain_timeout_s=settings.drain_timeout_ms / 1000,
            ping_interval_s=settings.ping_interval_ms / 1000,
            ping_timeout_s=settings.ping_timeout_ms / 1000,
            window_batches=settings.window_batches,
            window_bytes=settings.window_bytes,
            compression=settings.compression,
        )

    @property
    def record_bytes(self) -> int:
        """Longest record to accept or send, in bytes. The two names that taking it over adds still have room."""
        return min(self.max_batch_bytes, self.max_line_bytes - ROUTE_ROOM_BYTES)
