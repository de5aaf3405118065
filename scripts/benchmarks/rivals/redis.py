"""Redis streams: XADD, and a consumer group that acknowledges in batches."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, Receiver, Sender, rival_line, rival_number, rival_payload
from benchmarks.rivals.server import Server, connect, free_port


class _Connection:
    """hiredis, the C parser that redis-py uses, on a bare socket: a third of redis-py's time for a call."""

    def __init__(self, port: int) -> None:
        import hiredis

        self._pack = hiredis.pack_command
        self._reader = hiredis.Reader()
        self._socket: socket.socket = connect(port)
        self._errors = (hiredis.ReplyError, hiredis.ProtocolError)

    def call(self, *command: Any) -> Any:
        return self.pipeline([command])[0]

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self._socket.sendall(b"".join(map(self._pack, commands)))
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(262_144)
            if not received:
                raise RuntimeError("redis-server closed the connection")
            self._reader.feed(received)
        if isinstance(reply, self._errors):
            raise reply
        return reply

    def close(self) -> None:
        self._socket.close()


class _Sender(Sender):
    def __init__(self, port: int) -> None:
        self._redis = _Connection(port)

    def send(self, channel: str, number: int) -> None:
        self._redis.call("XADD", channel, "*", "m", rival_line(number))

    def send_many(self, channel: str, first: int, count: int) -> None:
        self._redis.pipeline([("XADD", channel, "*", "m", rival_line(n)) for n in range(first, first + count)])

    def close(self) -> None:
        self._redis.close()


class _Receiver(Receiver):
    def __init__(self, port: int, channel: str) -> None:
        self._redis = _Connection(port)
        self._channel = channel
        self._redis.call("XGROUP", "CREATE", channel, "group", "0", "MKSTREAM")

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        read = ("XREADGROUP", "GROUP", "group", "us", "COUNT", "500", "BLOCK", "0", "STREAMS", self._channel, ">")
        batch = self._redis.call(*read)
        while True:
            messages = batch[0][1]
            for message in messages:
                handle(message)
            count -= len(messages)
            acknowledge = ("XACK", self._channel, "group", *(message[0] for message in messages))
            if count <= 0:
                self._redis.call(*acknowledge)
                return
            batch = self._redis.pipeline([acknowledge, read])[1]

    def number(self, message: Any) -> int:
        return rival_number(message[1][1])

    def payload(self, message: Any) -> Any:
        return rival_payload(message[1][1])

    def close(self) -> None:
        self._redis.close()


class Redis(Contender):
    """`appendfsync always` when strict, `everysec` when not; no snapshots."""

    key = "redis"
    label = "Redis streams"

    def __init__(self) -> None:
        self._server: Server | None = None

    def absent(self) -> str | None:
        if shutil.which("redis-server") is None:
            return "redis-server is not installed (Debian: redis-server)"
        return None if find_spec("hiredis") else "the Python package hiredis is not installed"

    def start(self, place: Path, strict: bool) -> None:
        port = free_port()
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(place),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if strict else "everysec",
            # A rewrite of the file in the middle of a run would be measured as well.
            "auto-aof-rewrite-percentage": "0",
        }
        command = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
        self._server = Server(command, port, place)
        self._port = port

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def sender(self, channels: list[str]) -> Sender:
        return _Sender(self._port)

    def receiver(self, channel: str) -> Receiver:
        return _Receiver(self._port, channel)
