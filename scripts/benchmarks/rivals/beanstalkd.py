"""beanstalkd: a tube for each channel; a job is deleted when it has been handled."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, Receiver, Sender, rival_line, rival_number, rival_payload
from benchmarks.rivals.server import Server, connect, free_port

_PIPELINE = 100


class _Connection:
    def __init__(self, port: int) -> None:
        self._socket: socket.socket = connect(port)
        self._file = self._socket.makefile("rb", buffering=262_144)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> list[bytes]:
        """The words of the next answer."""
        line = self._file.readline()
        if not line:
            raise RuntimeError("beanstalkd closed the connection")
        return line.split()

    def expect(self, word: bytes) -> None:
        """Raise when the next answer is another one."""
        words = self.answer()
        if words[0] != word:
            raise RuntimeError(f"beanstalkd answered {words!r}, not {word!r}")

    def body(self, size: int) -> bytes:
        content: bytes = self._file.read(size + 2)
        return content[:-2]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _put(number: int) -> bytes:
    line = rival_line(number)
    return b"put 0 0 600 %d\r\n%s\r\n" % (len(line), line)


class _Sender(Sender):
    def __init__(self, port: int) -> None:
        self._connection = _Connection(port)
        self._tube = ""

    def _use(self, tube: str) -> None:
        if tube != self._tube:
            self._connection.send(b"use %s\r\n" % tube.encode())
            self._connection.expect(b"USING")
            self._tube = tube

    def send(self, channel: str, number: int) -> None:
        self._use(channel)
        self._connection.send(_put(number))
        self._connection.expect(b"INSERTED")

    def send_many(self, channel: str, first: int, count: int) -> None:
        self._use(channel)
        self._connection.send(b"".join(map(_put, range(first, first + count))))
        for _ in range(count):
            self._connection.expect(b"INSERTED")

    def close(self) -> None:
        self._connection.close()


class _Receiver(Receiver):
    def __init__(self, port: int, channel: str) -> None:
        self._connection = _Connection(port)
        self._connection.send(b"watch %s\r\nignore default\r\n" % channel.encode())
        self._connection.expect(b"WATCHING")
        self._connection.expect(b"WATCHING")

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        deletes: list[bytes] = []
        width = 1
        while count > 0:
            # The first waits for a job; more are asked for only while there is a backlog.
            width = min(width, count)
            asks = b"reserve\r\n" + b"reserve-with-timeout 0\r\n" * (width - 1)
            self._connection.send(b"".join(deletes) + asks)
            self._deleted(deletes)
            deletes = [job for _ in range(width) if (job := self._next(handle))]
            count -= len(deletes)
            width = min(_PIPELINE, width * 2) if len(deletes) == width else 1
        self._connection.send(b"".join(deletes))
        self._deleted(deletes)

    def _next(self, handle: Callable[[Any], object]) -> bytes | None:
        words = self._connection.answer()
        if words[0] == b"TIMED_OUT":
            return None
        if words[0] != b"RESERVED":
            raise RuntimeError(f"beanstalkd answered {words!r}")
        handle(self._connection.body(int(words[2])))
        return b"delete %s\r\n" % words[1]

    def _deleted(self, deletes: list[bytes]) -> None:
        for _ in deletes:
            self._connection.expect(b"DELETED")

    def number(self, message: Any) -> int:
        return rival_number(message)

    def payload(self, message: Any) -> Any:
        return rival_payload(message)

    def close(self) -> None:
        self._connection.close()


class Beanstalkd(Contender):
    """`-f0`, a sync for each write, when strict; `-f200` when not."""

    key = "beanstalkd"
    label = "beanstalkd"
    backlog = 50_000

    def __init__(self) -> None:
        self._server: Server | None = None

    def absent(self) -> str | None:
        return None if shutil.which("beanstalkd") else "beanstalkd is not installed (Debian: beanstalkd)"

    def start(self, place: Path, strict: bool) -> None:
        port = free_port()
        flush = "-f0" if strict else "-f200"
        command = ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(place), flush]
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
