"""The cable between the two hosts: a TCP proxy that can be cut and mended."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_CHUNK_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Cable:
    """Listens at `address` from the start; leads to a hub once it is plugged in."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        """Where a client connects to."""
        self._target: tuple[str, int] | None = None
        self._is_whole = True
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def plug(self, host: str, port: int) -> None:
        """This is the hub at its other end."""
        self._target = (host, port)

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        with self._lock:
            self._is_whole = False
            for end in self._ends:
                with contextlib.suppress(OSError):  # a thread that waits for it is told
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """From now on connections pass again."""
        self._is_whole = True

    def close(self) -> None:
        """Cut it for good."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._connect(near):
                # As if nothing were there: a peer is not to take it for an orderly end.
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                near.close()

    def _connect(self, near: socket.socket) -> bool:
        if not self._is_whole or self._target is None:
            return False
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            return False
        far.settimeout(None)
        with self._lock:
            if not self._is_whole:
                far.close()
                return False
            self._ends |= {near, far}
        threading.Thread(target=self._join, args=(near, far), daemon=True).start()
        return True

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """One connection to its end, in both directions."""
        back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
        back.start()
        _pass_on(near, far)
        back.join()
        with self._lock:
            self._ends -= {near, far}
            near.close()
            far.close()


def _pass_on(end: socket.socket, other: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):
        while chunk := end.recv(_CHUNK_BYTES):
            other.sendall(chunk)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
