"""What comes out of a session: frames to send, and events that its shell acts on."""

from __future__ import annotations

from typing import NamedTuple

from keyop.federation.batch import Batch
from keyop.federation.wire import Hello


class Close(NamedTuple):
    """Close the WebSocket with this code and reason. Nothing is sent after it."""

    code: int
    reason: str


Frame = str | bytes | Close
"""What to send: a text frame, a binary frame, a close."""


class HelloReceived(NamedTuple):
    """The other side's handshake. A hub answers it with `accept` or `refuse`; a client may send from here on."""

    hello: Hello


class Received(NamedTuple):
    """A batch came. Commit it, synced, and say so, also if it is empty or all of its records are dropped."""

    batch: Batch


class Acknowledged(NamedTuple):
    """The peer has committed a batch. Batches are acknowledged in the order in which they were sent."""

    number: int
    """What `Session.send` returned."""
    last_id: str
    """What the peer says. A Go peer may say "" or an earlier id; nothing follows from it."""
    took_s: float
    """From `send` to here, in seconds."""


class Closed(NamedTuple):
    """The connection has ended or is about to: the last event."""

    code: int
    reason: str
    """One line for log and audit."""
    by_peer: bool
    """Whether the peer ended it, or the network."""
    in_flight: tuple[int, ...]
    """The batches that the peer may have or not. Send their lines again."""


Event = HelloReceived | Received | Acknowledged | Closed
