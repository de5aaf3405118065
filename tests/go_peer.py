"""A peer that behaves like the Go program 1.4.1, in both roles, with all of its habits.

Written from what that program was seen to do, not from ours. Its habits, each marked where it is played:

- echoes: a hub sends a client its own messages back, without a route;
- unknown keys and the route go, ``<`` and the like become escapes, numbers in payloads stay as they are written;
- acknowledgements name the last record that was kept or too big, so "" or an earlier id; one for each frame;
- frames above 4 KiB come in fragments; a batch from a client may be longer than 4 MiB;
- a frame that is no sequence of records: it stops reading, says nothing, closes nothing;
- no pings, no time limits, no close frame but 4403, no closing of TCP after a close frame; a stop drops TCP;
- a hub sends a backlog only after the next write to its channel, and replays for ephemeral clients, too;
- a client that only subscribes does not notice a loss; one that publishes notices when it sends, and of its queue only
  the batch under way comes again.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any, Self

from child import DEADLINE_S, eventually
from raw_peer import Gone, Wire, accept, connect

from keyop.configuration.settings import TlsSettings

MAX_BATCH_BYTES = 4 << 20
FRAGMENT_BYTES = 4096
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HEAD_KEYS = ("v", "id", "ts", "channel", "origin", "payload_type", "correlation_id", "service_name")


class Unreadable(Exception):
    """Not an envelope for a Go program."""


class GoEnvelope:
    """What the Go program knows of an envelope: no unknown keys, no route, the payload as its text."""

    def __init__(self, head: dict[str, Any], payload: str) -> None:
        self.head = head
        self.payload = payload

    @classmethod
    def read(cls, line: bytes) -> Self:
        try:
            text = line.decode()
            members = json.loads(text)
            if members["v"] != 1 or not isinstance(members["id"], str):
                raise Unreadable
            begin = text.index('"payload":') + len('"payload":')
            return cls({key: members[key] for key in _HEAD_KEYS if key in members}, text[begin:-1])
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable from error

    @property
    def id(self) -> str:
        return str(self.head["id"])

    @property
    def channel(self) -> str:
        return str(self.head["channel"])

    @property
    def line(self) -> bytes:
        """As it writes it."""
        head = json.dumps(self.head, separators=(",", ":"), ensure_ascii=False)
        text = f'{head[:-1]},"payload":{self.payload}}}'
        return "".join(_ESCAPES.get(character, character) for character in text).encode()


def records_of(frame: bytes) -> list[bytes]:
    """Raises ValueError for a truncated one."""
    found = []
    at = 0
    while at < len(frame):
        if at + 4 > len(frame):
            raise ValueError("truncated")
        (length,) = struct.unpack_from(">I", frame, at)
        at += 4
        if at + length > len(frame):
            raise ValueError("truncated")
        found.append(frame[at : at + length])
        at += length
    return found


def frame_of(lines: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(line)) + line for line in lines)


class GoInstance:
    """Channels in memory, and the ids that were seen: lost at a restart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.channels: dict[str, list[GoEnvelope]] = {}
        self.seen: set[str] = set()
        self.frames: list[bytes] = []
        """What was received."""
        self.acks: list[str] = []
        """What was sent for it."""
        self.lock = threading.RLock()
        self.written = threading.Condition(self.lock)

    def store(self, envelope: GoEnvelope) -> None:
        with self.written:
            self.seen.add(envelope.id)
            self.channels.setdefault(envelope.channel, []).append(envelope)
            self.written.notify_all()

    def payloads(self, channel: str) -> list[Any]:
        with self.lock:
            return [json.loads(envelope.payload) for envelope in self.channels.get(channel, [])]

    def ids(self, channel: str) -> list[str]:
        with self.lock:
            return [envelope.id for envelope in self.channels.get(channel, [])]

    def has(self, channel: str, count: int) -> list[Any]:
        eventually(lambda: len(self.payloads(channel)) >= count)
        found = self.payloads(channel)
        assert len(found) == count, found
        return found

    def receive(self, frame: bytes, allowed: tuple[str, ...] = ()) -> str:
        """Take a frame; the id for its acknowledgement. Raises ValueError for a truncated one."""
        last_id = ""
        records = records_of(frame)
        self.frames.append(frame)
        for record in records:
            try:
                envelope = GoEnvelope.read(record)
            except Unreadable:
                continue
            if len(record) > MAX_BATCH_BYTES:
                last_id = envelope.id
            elif envelope.id not in self.seen and (not allowed or envelope.channel in allowed):
                self.store(envelope)
                last_id = envelope.id
        self.acks.append(last_id)
        return last_id


def _ack(last_id: str) -> str:
    return json.dumps({"last_id": last_id}, separators=(",", ":"))


class GoHub:
    """Listens until `stop`. Positions are kept over a stop, as in its files; the ids that were seen are not."""

    def __init__(self, instance: GoInstance, tls: TlsSettings, peers: tuple[str, ...], port: int = 0) -> None:
        self.instance = instance
        self._tls = tls
        self._peers = peers
        self._positions: dict[tuple[str, str], int] = {}
        self.hellos: list[str] = []
        self.closes: list[tuple[int, str]] = []
        """Close frames of peers."""
        self._wires: set[Wire] = set()
        self._listening = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._stopped = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                wire = accept(self._listening, self._tls)
            except (OSError, Gone):
                continue
            self._wires.add(wire)
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        try:
            hello = wire.receive(1e6)  # no time limit
            members = json.loads(hello) if isinstance(hello, str) else None
        except (Gone, OSError, ValueError):
            wire.drop()
            return
        if not isinstance(hello, str):
            wire.drop()  # without a close frame
            return
        subject = dict(pair[0] for pair in (wire.connection.getpeercert() or {})["subject"])  # type: ignore[misc, index, arg-type]
        name = subject["commonName"]
        self.hellos.append(hello)
        if name not in self._peers:
            wire.protocol.send_close(4403, "not in allowlist")
            wire._flush()
            wire.drop()
            return
        wire.send(
            json.dumps({"instance_name": self.instance.name, "role": "hub", "version": "1"}, separators=(",", ":"))
        )
        acks = threading.Semaphore(0)
        sending = threading.Lock()  # one batch in flight over all channels
        channels = (members or {}).get("subscribe") or []
        for (
            channel
        ) in channels:  # a name twice: two readers, everything twice. Ephemeral or not: a position, and replay
            end = len(self.instance.channels.get(channel, []))
            self._positions.setdefault((name, channel), end)
            threading.Thread(target=self._read, args=(wire, name, channel, sending, acks), daemon=True).start()
        try:
            while True:
                message = wire.receive(1e6)
                if isinstance(message, str):
                    acks.release()  # whatever it says
                    continue
                try:
                    wire.send(_ack(self.instance.receive(message)))
                except ValueError:
                    self._stopped.wait()  # a bad frame: nothing is read, said or closed any more
        except (Gone, OSError) as gone:
            if isinstance(gone, Gone):
                self.closes.append((gone.code, gone.reason))
            if isinstance(gone, Gone) and gone.code != 1006:
                self._stopped.wait()  # it has echoed the close, and does not close TCP

    def _read(self, wire: Wire, name: str, channel: str, sending: threading.Lock, acks: threading.Semaphore) -> None:
        """One reader for a channel. The backlog goes only with the next write."""
        key = (name, channel)
        instance = self.instance
        known = len(instance.channels.get(channel, []))
        while True:
            with instance.written:
                while len(instance.channels.get(channel, [])) == known:
                    instance.written.wait()
                    if self._stopped.is_set():
                        return
                known = len(instance.channels[channel])
                position = self._positions[key]
                waiting = instance.channels[channel][position:known]
            for lines in _batches([envelope.line for envelope in waiting]):
                with sending:
                    try:
                        wire.send(frame_of(lines), fragment_bytes=FRAGMENT_BYTES)
                    except (OSError, ssl.SSLError, Exception):
                        return
                    acks.acquire()
                self._positions[key] += len(lines)  # after the acknowledgement

    def publish(self, channel: str, payload: Any, message_id: str, *, text: str = "") -> None:
        self.instance.store(go_envelope(self.instance.name, channel, payload, message_id, text=text))

    def stop(self) -> None:
        """Drop TCP, everywhere."""
        self._stopped.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for wire in self._wires:
            wire.drop()
        with self.instance.written:
            self.instance.written.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def go_envelope(origin: str, channel: str, payload: Any, message_id: str, *, text: str = "") -> GoEnvelope:
    """``text``: the payload as it is written."""
    head = {
        "v": 1,
        "id": message_id,
        "ts": "2026-11-23T21:15:14.523184788+02:00",
        "channel": channel,
        "origin": origin,
        "payload_type": "t",
    }
    return GoEnvelope(head, text or json.dumps(payload, separators=(",", ":")))


def _batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


class GoClient:
    """A client with a queue in memory. It reports itself connected until it notices otherwise, when it sends."""

    def __init__(
        self,
        instance: GoInstance,
        tls: TlsSettings,
        address: str,
        subscribe: tuple[str, ...] = (),
        *,
        ephemeral: bool = False,
        receives: tuple[str, ...] = (),
    ) -> None:
        self.instance = instance
        self._tls = tls
        self._address = address
        self._subscribe = subscribe
        self._ephemeral = ephemeral
        self._receives = receives
        self._queue: list[bytes] = []
        self._changed = threading.Condition()
        self._stopped = False
        self.acks: list[str] = []
        """Those of the hub."""
        self.ended: tuple[int, str] | None = None
        self.connections = 0
        self._connect()
        threading.Thread(target=self._send, daemon=True).start()

    def _connect(self) -> None:
        self.wire = connect(self._address, self._tls)
        hello: dict[str, Any] = {"instance_name": self.instance.name, "role": "client", "version": "1"}
        if self._subscribe:
            hello["subscribe"] = list(self._subscribe)
        if self._ephemeral:
            hello["ephemeral"] = True
        self.wire.send(json.dumps(hello, separators=(",", ":")))
        self.hub_hello = self.wire.receive()
        self._in_flight: threading.Event | None = None
        self.connections += 1
        threading.Thread(target=self._receive, args=(self.wire,), daemon=True).start()

    def _receive(self, wire: Wire) -> None:
        try:
            while True:
                message = wire.receive(1e6)
                if isinstance(message, str):
                    self.acks.append(json.loads(message)["last_id"])
                    if self._in_flight is not None:
                        self._in_flight.set()
                else:
                    wire.send(_ack(self.instance.receive(message, self._receives)))
        except (Gone, OSError) as gone:
            self.ended = (gone.code, gone.reason) if isinstance(gone, Gone) else (1006, "")
            if self._in_flight is not None:
                self._in_flight.set()

    def publish(self, channel: str, payload: Any, message_id: str) -> None:
        envelope = go_envelope(self.instance.name, channel, payload, message_id)
        self.instance.store(envelope)
        with self._changed:
            self._queue.append(envelope.line)
            self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                lines: list[bytes] = []
                size = 0
                while self._queue and size <= MAX_BATCH_BYTES:  # by one record more than it
                    lines.append(self._queue.pop(0))
                    size += len(lines[-1])
            if not self._deliver(lines):
                return

    def _deliver(self, lines: list[bytes]) -> bool:
        """Send a batch until it is acknowledged. What was queued when a loss is noticed is lost for the hub."""
        while True:
            arrived = self._in_flight = threading.Event()
            acks = len(self.acks)
            try:
                if self.ended is not None:
                    raise OSError
                self.wire.send(frame_of(lines), fragment_bytes=FRAGMENT_BYTES)
                arrived.wait()  # no time limit
                if len(self.acks) > acks:
                    return True
            except Exception:  # whatever the library says of a connection that is gone
                pass
            with self._changed:
                self._queue.clear()
            while not self._stopped:
                try:
                    self.ended = None
                    self._connect()
                    break
                except (Gone, OSError):
                    threading.Event().wait(0.05)
            if self._stopped:
                return False

    def stop(self) -> None:
        """Drop TCP."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._in_flight is not None:
            self._in_flight.set()
        self.wire.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


__all__ = ["DEADLINE_S", "GoClient", "GoEnvelope", "GoHub", "GoInstance", "frame_of", "go_envelope", "records_of"]
