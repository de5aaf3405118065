"""The supervisor's ear: a socket in ``run/`` for ``keyop status``, ``restart`` and ``stop`` of the same user.

A request is a line of JSON, ``{"command": "restart", "role": "hub"}``, and so is the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyop.processes.loop import Loop
from keyop.supervisor.socket_path import SOCKET_NAME, short_path

_MOST_CONNECTIONS = 32
_LONGEST_REQUEST_BYTES = 4096
_PATIENCE_S = 5.0

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class Control:
    """Answers while the loop runs. Whoever makes it holds the lease of the directory, so that there is one only."""

    def __init__(self, loop: Loop, run: Path, handler: Handler) -> None:
        """Raises `OSError`."""
        self._loop = loop
        self._handler = handler
        self._path = run / SOCKET_NAME
        self._connections: set[_Connection] = set()
        # That of a supervisor that was killed.
        self._path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with short_path(self._path) as path:
                self._listening.bind(path)
        except OSError as error:
            self._listening.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        finally:
            os.umask(before)
        self._listening.listen(_MOST_CONNECTIONS * 4)
        self._listening.setblocking(False)
        loop.watch(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Take no more questions. Who waits for this process's end has its connection closed by that."""
        self._loop.forget(self._listening.fileno())
        self._listening.close()
        with contextlib.suppress(OSError):  # a failing disk: the next one removes it
            self._path.unlink()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except OSError:
            return  # it has gone again, or descriptors are short
        if len(self._connections) >= _MOST_CONNECTIONS:
            accepted.close()
            return
        self._connections.add(_Connection(accepted, self._loop, self._handler, self._connections.discard))


class _Connection:
    """One request, one answer, and then until the other side closes. Who does not ask, or does not read, is hung up."""

    def __init__(
        self, accepted: socket.socket, loop: Loop, handler: Handler, closed: Callable[[_Connection], None]
    ) -> None:
        self._socket = accepted
        self._loop = loop
        self._handler = handler
        self._closed = closed
        self._heard = b""
        self._unsent = b""
        self._answered = False
        accepted.setblocking(False)
        loop.watch(accepted.fileno(), self._read)
        self._limit = loop.later(_PATIENCE_S, self.close)

    def close(self) -> None:
        """Once."""
        if self._socket.fileno() >= 0:
            self._limit.cancel()
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._closed(self)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_LONGEST_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._answered:
            self.close()
            return
        self._heard += data
        if b"\n" in self._heard:
            self._answer()
        elif len(self._heard) > _LONGEST_REQUEST_BYTES:
            self.close()

    def _answer(self) -> None:
        self._answered = True
        try:
            request = json.loads(self._heard.partition(b"\n")[0])
            answer = self._handler(request) if isinstance(request, dict) else {"error": "a request is an object"}
        except ValueError:
            answer = {"error": "a request is a line of JSON"}
        self._unsent = json.dumps(answer).encode() + b"\n"
        self._send()

    def _send(self) -> None:
        """As much as is taken; the rest when there is room."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._unsent:
            self._loop.watch_writing(self._socket.fileno(), self._send)
        else:
            self._limit.cancel()
            self._loop.watch(self._socket.fileno(), self._read)
