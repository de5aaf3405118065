"""One connection between hub and client as a state machine: wire protocol "1" without any I/O and without a clock.

A shell owns the WebSocket. It tells the `Session` what came and what was done, and does what the session answers::

    session = Session.client("pi-3", ["alerts"], now_s=clock())      # or Session.hub("hub-1", now_s=clock())
    ...
    async def receive():                                  # one task
        while session.can_receive or await room():        # back-pressure: not reading is what stops the peer
            session.receive(await ws.recv(), clock())     # str is a text frame, bytes a binary one
            for event in session.events():
                match event:
                    case HelloReceived(hello):            # hub: check, open positions, then
                        session.accept(clock())           # ... or session.refuse()
                    case Received(batch):                 # commit it, wherever and however; when that is synced
                        commit(batch, lambda: session.committed(batch.number, clock()))
                    case Acknowledged(number, last_id, took_s):
                        move_cursor(number)
                    case Closed(code, reason, by_peer):   # for log and audit; the last event
                        return
            wake_sender()

    async def send():                                     # one task, so that frames keep their order
        while True:
            if session.can_send and (lines := more_lines()):
                number = session.send(lines, clock())
            for frame in session.frames_to_send():        # in this order
                if isinstance(frame, Close):
                    await ws.close(frame.code, frame.reason)     # with a time limit: Go does not close TCP
                else:
                    await ws.send(frame)
            await woken_or(session.deadline_s)
            session.tick(clock())

After each call of a method that takes a time, look at `frames_to_send`, `events` and `deadline_s` again. `now_s` is a
monotonic clock's. When the WebSocket ends by itself, call `connection_lost` with what the peer said, if anything.

Pings and compression are the WebSocket's business. So is the bound of one message while it comes in: set it to
`max_message_bytes`, which grows once the handshake is done, and close with 1009.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from keyop.federation.batch import Batch
from keyop.federation.events import Acknowledged, Close, Closed, Event, Frame, HelloReceived, Received
from keyop.federation.limits import Limits
from keyop.federation.window import InFlight, Uncommitted
from keyop.federation.wire import (
    FEATURES,
    PIPELINED,
    CloseCode,
    WireError,
    ack_text,
    client_hello,
    cut_reason,
    frame_of,
    hub_hello,
    read_ack,
    read_hello,
)

__all__ = [
    "Acknowledged",
    "Batch",
    "Close",
    "Closed",
    "Event",
    "Frame",
    "HelloReceived",
    "Received",
    "Session",
    "State",
]


class State(enum.Enum):
    """How far a connection is."""

    HELLO = "hello"
    """The other side's handshake is awaited."""
    GREETED = "greeted"
    """A hub has the client's handshake and has not answered yet."""
    OPEN = "open"
    """Batches flow."""
    DRAINING = "draining"
    """This side is about to stop: what is under way is finished, nothing is begun."""
    CLOSED = "closed"
    """Nothing comes or goes any more."""


class Session:
    """One connection, seen from one of its sides. Make it with `client` or `hub`. Not for several threads at once."""

    def __init__(self, role: str, instance_name: str, features: Sequence[str], limits: Limits, now_s: float) -> None:
        self.role = role
        """What this side plays: "client" or "hub"."""
        self.state = State.HELLO
        """How far the connection is."""
        self.features: frozenset[str] = frozenset()
        """What both sides can do beyond the protocol; known with HelloReceived."""
        self._instance_name = instance_name
        self._own_features = tuple(features)
        self._limits = limits
        self._frames: list[Frame] = []
        self._events: list[Event] = []
        self._acks_unsent = 0
        self._uncommitted = Uncommitted(limits)
        self._in_flight = InFlight(limits)
        self._hello_due_s = now_s + limits.handshake_timeout_s
        self._ack_due_s = 0.0
        self._drain_due_s = 0.0

    @classmethod
    def client(
        cls,
        instance_name: str,
        subscribe: Sequence[str] = (),
        *,
        now_s: float,
        ephemeral: bool = False,
        limits: Limits | None = None,
        features: Sequence[str] = FEATURES,
    ) -> Session:
        """The side that connects. Its handshake is the first frame to send. `subscribe`: the channels to ask for."""
        session = cls("client", instance_name, features, limits or Limits(), now_s)
        session._frames.append(client_hello(instance_name, tuple(dict.fromkeys(subscribe)), ephemeral, features))
        return session

    @classmethod
    def hub(
        cls, instance_name: str, *, now_s: float, limits: Limits | None = None, features: Sequence[str] = FEATURES
    ) -> Session:
        """The side that listens. It waits for the client's handshake."""
        return cls("hub", instance_name, features, limits or Limits(), now_s)

    # What the shell asks.

    def frames_to_send(self) -> list[Frame]:
        """What is to be sent since the last call, in this order."""
        frames, self._frames = self._frames, []
        self._acks_unsent = 0
        return frames

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def deadline_s(self) -> float | None:
        """When `tick` is to be called at the latest; None: nothing is waited for."""
        if self.state is State.HELLO:
            return self._hello_due_s
        due = []
        if self.state is State.DRAINING:
            due.append(self._drain_due_s)
        if self._in_flight and self.state in _FLOWING and self.can_receive:
            due.append(self._ack_due_s)
        return min(due, default=None)

    @property
    def can_send(self) -> bool:
        """Whether `send` may be called now."""
        return self.state is State.OPEN and self._in_flight.has_room(PIPELINED in self.features)

    @property
    def can_receive(self) -> bool:
        """Whether to read on. False while batches wait for their commit: their number and size are bounded."""
        return self.state is not State.CLOSED and self._uncommitted.has_room

    @property
    def max_message_bytes(self) -> int:
        """The longest message to take from the peer as things stand."""
        limits = self._limits
        return limits.handshake_bytes if self.state in (State.HELLO, State.GREETED) else limits.max_message_bytes

    @property
    def in_flight(self) -> int:
        """How many batches are sent and not acknowledged."""
        return len(self._in_flight)

    @property
    def waiting_bytes(self) -> int:
        """How much of what the peer sent waits for its commit."""
        return self._uncommitted.size_bytes

    # What the shell tells.

    def receive(self, message: str | bytes, now_s: float) -> None:
        """A message came: a text frame as str, a binary frame as bytes. Whatever it holds, this does not raise."""
        if self.state is State.CLOSED:
            return
        try:
            if isinstance(message, str):
                self._receive_text(message, now_s)
            else:
                self._receive_binary(message)
        except WireError as error:
            self._end(error.code, str(error))

    def accept(self, now_s: float) -> None:
        """A hub lets the client in: its handshake is answered, and batches may flow."""
        if self.state is not State.GREETED:
            return
        # A peer that named no feature of ours is sent nothing that the Go program would not send.
        agreed = [feature for feature in self._own_features if feature in self.features]
        self._frames.append(hub_hello(self._instance_name, agreed))
        self.state = State.OPEN

    def refuse(self, reason: str = "not in allowlist") -> None:
        """A hub does not let the client in. May be said before the handshake came."""
        self._end(CloseCode.NOT_ALLOWED, reason)

    def send(self, lines: Sequence[bytes], now_s: float) -> int:
        """Send these lines (envelopes without newlines) as one batch; its number, 1 for the first.

        Raises RuntimeError unless `can_send`.
        """
        if not self.can_send:
            raise RuntimeError(f"no batch can be sent now: {self.state.value}, {len(self._in_flight)} in flight")
        frame = frame_of(lines)
        if not self._in_flight:
            self._ack_due_s = now_s + self._limits.ack_timeout_s
        self._frames.append(frame)
        return self._in_flight.add(len(frame), now_s)

    def committed(self, number: int, now_s: float) -> None:
        """A batch from the peer is committed and synced, or there was nothing in it to commit.

        Its acknowledgement is sent once those of all earlier ones are.
        """
        if self.state is State.CLOSED:
            return
        could_receive = self.can_receive
        for last_id in self._uncommitted.committed(number):
            self._acknowledge(last_id)
        if self.can_receive and not could_receive:
            # Acknowledgements may have come while nobody read them.
            self._ack_due_s = now_s + self._limits.ack_timeout_s
        self._end_if_drained()

    def commit_failed(self, number: int, reason: str) -> None:
        """A batch from the peer could not be committed: no acknowledgement, and the connection ends.

        The peer sends it again when it is back.
        """
        self._end(CloseCode.INTERNAL_ERROR, f"batch {number} not committed: {reason}")

    def drain(self, now_s: float) -> None:
        """Stop soon: wait for what is in flight and for what is being committed, then close with 1001.

        Batches that come from now on are not taken; their sender keeps them.
        """
        if self.state is State.OPEN:
            self.state = State.DRAINING
            self._drain_due_s = now_s + self._limits.drain_timeout_s
            self._end_if_drained()
        elif self.state is not State.DRAINING:
            self.close(CloseCode.GOING_AWAY, "going away")

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close at once; a hub with REPLACED, when another connection of the same certificate has come."""
        self._end(code, reason)

    def connection_lost(self, code: int = CloseCode.ABNORMAL, reason: str = "") -> None:
        """The WebSocket has ended, with the peer's close if it sent one. Nothing is sent any more."""
        if self.state is not State.CLOSED:
            self._finish(code, reason, by_peer=True)
            self._frames.clear()

    def tick(self, now_s: float) -> None:
        """Time has passed."""
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return
        limits = self._limits
        if self.state is State.HELLO:
            self._end(CloseCode.PROTOCOL_ERROR, f"no handshake within {limits.handshake_timeout_s:g} s")
        elif self.state is State.DRAINING and now_s >= self._drain_due_s:
            self._end(CloseCode.GOING_AWAY, "going away")
        else:
            self._end(CloseCode.PROTOCOL_ERROR, f"no acknowledgement within {limits.ack_timeout_s:g} s")

    # What follows.

    def _receive_text(self, text: str, now_s: float) -> None:
        if self.state is State.HELLO:
            self._receive_hello(text)
        elif self.state is State.GREETED:
            raise WireError("a second text frame before the handshake was answered")
        else:
            self._receive_ack(text, now_s)

    def _receive_hello(self, text: str) -> None:
        limits = self._limits
        if len(text.encode("utf-8", "replace")) > limits.handshake_bytes:
            raise WireError(f"handshake of more than {limits.handshake_bytes:,} bytes", CloseCode.TOO_BIG)
        role = "client" if self.role == "hub" else "hub"
        hello = read_hello(text, role, self._own_features, limits.subscribe_names)
        self.features = hello.features
        self.state = State.GREETED if self.role == "hub" else State.OPEN
        self._events.append(HelloReceived(hello))

    def _receive_ack(self, text: str, now_s: float) -> None:
        if not self._in_flight:
            raise WireError("an acknowledgement, and nothing is in flight")
        # A peer repeats the id that it got, however long that is: to close would send it again, for ever.
        last_id = read_ack(text) if len(text) <= self._limits.handshake_bytes else ""
        number, took_s = self._in_flight.acknowledged(now_s)
        self._ack_due_s = now_s + self._limits.ack_timeout_s
        self._events.append(Acknowledged(number, last_id, took_s))
        self._end_if_drained()

    def _receive_binary(self, frame: bytes) -> None:
        if self.state in (State.HELLO, State.GREETED):
            raise WireError("a binary frame before the handshake")
        limits = self._limits
        if len(frame) > limits.max_message_bytes:
            raise WireError(f"a frame of {len(frame):,} bytes, at most {limits.max_message_bytes:,}", CloseCode.TOO_BIG)
        if self.state is State.DRAINING:
            return
        if not self.can_receive:
            raise WireError(f"{len(self._uncommitted)} batches wait for their commit; no more are taken")
        batch = Batch(self._uncommitted.next_number, frame, limits.record_bytes, limits.max_records)
        self._uncommitted.add(batch.size_bytes, batch.last_id)
        self._events.append(Received(batch))

    def _acknowledge(self, last_id: str) -> None:
        self._acks_unsent += 1
        if self._acks_unsent > self._limits.unsent_acks:
            self._end(CloseCode.PROTOCOL_ERROR, f"{self._acks_unsent:,} acknowledgements wait, the peer does not read")
        elif self.state in _FLOWING:
            self._frames.append(ack_text(last_id))

    def _end_if_drained(self) -> None:
        if self.state is State.DRAINING and not self._in_flight and not self._uncommitted:
            self._end(CloseCode.GOING_AWAY, "going away")

    def _end(self, code: int, reason: str) -> None:
        if self.state is not State.CLOSED:
            reason = cut_reason(reason)
            self._finish(code, reason, by_peer=False)
            self._frames.append(Close(code, reason))

    def _finish(self, code: int, reason: str, by_peer: bool) -> None:
        self.state = State.CLOSED
        self._events.append(Closed(int(code), cut_reason(reason), by_peer, self._in_flight.numbers()))


_FLOWING = (State.OPEN, State.DRAINING)
