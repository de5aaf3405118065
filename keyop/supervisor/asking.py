"""Asking the supervisor of a data directory, from another process."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from keyop.errors import KeyopError, SupervisorUnavailable
from keyop.storage.directory import DataDirectory
from keyop.supervisor.socket_path import SOCKET_NAME, short_path

TIMEOUT_S = 5.0


class Supervisor:
    """A connection to it, for one question. Raises `SupervisorUnavailable`."""

    def __init__(self, directory: DataDirectory) -> None:
        path = directory.run / SOCKET_NAME
        self._name = str(directory.path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        try:
            with short_path(path) as short:
                self._socket.connect(short)
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise SupervisorUnavailable(f"{self._name}: no supervisor runs here; `keyop up` is one") from None
        except OSError as error:
            self._socket.close()
            raise SupervisorUnavailable(f"{path}: the supervisor cannot be asked: {error.strerror}") from error

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        """Its answer. Raises `KeyopError` with what it says is wrong."""
        request = json.dumps({"command": command, **more}).encode() + b"\n"
        try:
            self._socket.sendall(request)
            heard = b""
            while b"\n" not in heard and (data := self._socket.recv(1 << 16)):
                heard += data
            answer = json.loads(heard)
        except (OSError, ValueError):
            raise SupervisorUnavailable(f"{self._name}: the supervisor does not answer") from None
        if "error" in answer:
            raise KeyopError(f"{self._name}: {answer['error']}")
        return dict(answer)

    def wait_for_end(self, timeout_s: float | None) -> bool:
        """Wait until it has ended; whether it has."""
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            try:
                while self._socket.recv(4096):
                    pass
            except ConnectionError:
                pass
            return True
        return False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(directory: DataDirectory, command: str, **more: Any) -> dict[str, Any]:
    """One question. Raises `SupervisorUnavailable`, and `KeyopError` with what the supervisor says is wrong."""
    with Supervisor(directory) as supervisor:
        return supervisor.ask(command, **more)
