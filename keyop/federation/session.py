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
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keyop.federation.limits import Limits
from keyop.federation.record import Fault, Record, read_record
from keyop.federation.wire import (
    FEATURES,
    PIPELINED,
    CloseCode,
    Hello,
    WireError,
    ack_text,
    client_hello,
    cut_reason,
    frame_of,
    hub_hello,
    read_ack,
    read_hello,
    spans,
)

_MAX_ACK_ID = 1_024


class Close(NamedTuple):
    """Close the WebSocket with this code and reason. Nothing is sent after it."""

    code: int
    reason: str


Frame = str | bytes | Close
"""What to send: a text frame, a binary frame, a close."""


class HelloReceived(NamedTuple):
    """The other side's handshake. A hub answers it with `accept` or `refuse`; a client may send from here on."""

    hello: Hello


class Batch:
    """A frame of records from the peer. It waits for `Session.committed` or `Session.commit_failed`."""

    __slots__ = ("_frame", "_record_bytes", "count", "last_id", "number")

    def __init__(self, number: int, frame: bytes, record_bytes: int, max_records: int) -> None:
        """Raises WireError if the frame is no sequence of records."""
        self.number = number
        """1 for the first of the connection, then counted up."""
        self.count = 0
        """How many records it has, good and bad."""
        self.last_id = ""
        """The id of its last record, for the acknowledgement; "" where that cannot be read."""
        self._frame = frame
        self._record_bytes = record_bytes
        self._look(max_records)

    def _look(self, max_records: int) -> None:
        last = (0, 0)
        for last in spans(self._frame):  # noqa: B007
            self.count += 1
            if self.count > max_records:
                raise WireError(f"a frame of more than {max_records:,} records", CloseCode.TOO_BIG)
        if self.count:
            record = read_record(self._frame[slice(*last)], self._record_bytes)
            if record.fault is not Fault.UNREADABLE and len(record.head.id) <= _MAX_ACK_ID:
                self.last_id = record.head.id

    def __len__(self) -> int:
        """Its size in bytes."""
        return len(self._frame)

    def records(self) -> Iterator[Record]:
        """Its records in their order, bad ones too: look at `fault`.

        They are read one by one as they are taken, so that no more than what the caller keeps is in memory.
        """
        frame, record_bytes = self._frame, self._record_bytes
        for start, end in spans(frame):
            yield read_record(frame[start:end], record_bytes)


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


@dataclass(slots=True)
class _Inbound:
    batch_bytes: int
    last_id: str
    is_committed: bool = False


class _InFlight(NamedTuple):
    number: int
    bytes: int
    sent_s: float


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
        self._inbound: deque[_Inbound] = deque()
        self._inbound_bytes = 0
        self._first_inbound = 1
        self._in_flight: deque[_InFlight] = deque()
        self._in_flight_bytes = 0
        self._sent = 0
        self._hello_due_s: float | None = now_s + limits.handshake_timeout_s
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
        if self.state is not State.OPEN:
            return False
        if PIPELINED not in self.features:
            return not self._in_flight
        limits = self._limits
        return len(self._in_flight) < limits.window_batches and self._in_flight_bytes < limits.window_bytes

    @property
    def can_receive(self) -> bool:
        """Whether to read on. False while batches wait for their commit: their number and size are bounded."""
        if self.state is State.CLOSED:
            return False
        limits = self._limits
        return len(self._inbound) < limits.window_batches and self._inbound_bytes < limits.window_bytes

    @property
    def max_message_bytes(self) -> int:
        """The longest message to take from the peer as things stand."""
        limits = self._limits
        return limits.handshake_bytes if self.state in (State.HELLO, State.GREETED) else limits.max_message_bytes

    @property
    def in_flight(self) -> int:
        """How many batches are sent and not acknowledged."""
        return len(self._in_flight)

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
        self._sent += 1
        if not self._in_flight:
            self._ack_due_s = now_s + self._limits.ack_timeout_s
        self._in_flight.append(_InFlight(self._sent, len(frame), now_s))
        self._in_flight_bytes += len(frame)
        self._frames.append(frame)
        return self._sent

    def committed(self, number: int, now_s: float) -> None:
        """A batch from the peer is committed and synced, or there was nothing in it to commit.

        Its acknowledgement is sent once those of all earlier ones are.
        """
        place = number - self._first_inbound
        if self.state is State.CLOSED or not 0 <= place < len(self._inbound):
            return
        could_receive = self.can_receive
        self._inbound[place].is_committed = True
        while self._inbound and self._inbound[0].is_committed:
            batch = self._inbound.popleft()
            self._first_inbound += 1
            self._inbound_bytes -= batch.batch_bytes
            self._acknowledge(batch.last_id)
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
        batch = self._in_flight.popleft()
        self._in_flight_bytes -= batch.bytes
        self._ack_due_s = now_s + self._limits.ack_timeout_s
        self._events.append(Acknowledged(batch.number, last_id, now_s - batch.sent_s))
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
            raise WireError(f"{len(self._inbound)} batches wait for their commit; no more are taken")
        number = self._first_inbound + len(self._inbound)
        batch = Batch(number, frame, limits.record_bytes, limits.max_records)
        self._inbound.append(_Inbound(len(frame), batch.last_id))
        self._inbound_bytes += len(frame)
        self._events.append(Received(batch))

    def _acknowledge(self, last_id: str) -> None:
        self._acks_unsent += 1
        if self._acks_unsent > self._limits.unsent_acks:
            self._end(CloseCode.PROTOCOL_ERROR, f"{self._acks_unsent:,} acknowledgements wait, the peer does not read")
        elif self.state in _FLOWING:
            self._frames.append(ack_text(last_id))

    def _end_if_drained(self) -> None:
        if self.state is State.DRAINING and not self._in_flight and not self._inbound:
            self._end(CloseCode.GOING_AWAY, "going away")

    def _end(self, code: int, reason: str) -> None:
        if self.state is not State.CLOSED:
            reason = cut_reason(reason)
            self._finish(code, reason, by_peer=False)
            self._frames.append(Close(code, reason))

    def _finish(self, code: int, reason: str, by_peer: bool) -> None:
        self.state = State.CLOSED
        in_flight = tuple(batch.number for batch in self._in_flight)
        self._in_flight.clear()
        self._inbound.clear()
        self._events.append(Closed(int(code), cut_reason(reason), by_peer, in_flight))


_FLOWING = (State.OPEN, State.DRAINING)
