"""TLS of one connection without I/O: what came from the socket in, what the other side means out, and back.

asyncio's own layer drops the alert that tells the other side why it is refused: all that it sees is a reset.
"""

from __future__ import annotations

import ssl

_READ_BYTES = 65_536


class Tls:
    """One end of a connection."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool, host: str | None = None) -> None:
        """``host``: of a client the name or address that it dials."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.connection = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server, server_hostname=host)
        """Where the other side's certificate can be asked for."""
        self.is_up = False
        """Whether the handshake is done, as far as this side sees it."""
        self.has_ended = False
        """Whether the other side says no more."""

    def receive(self, data: bytes) -> bytes:
        """Take what came from the socket; what the other side has said. Look at `to_send` behind it, always.

        Raises `ssl.SSLError` for a handshake that has failed, an alert, damaged data.
        """
        self._incoming.write(data)
        if not self.is_up:
            try:
                self.connection.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            self.is_up = True
        said = []
        try:
            while part := self.connection.read(_READ_BYTES):
                said.append(part)
            self.has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        return b"".join(said)

    def write(self, data: bytes) -> None:
        """Say something; `to_send` has it for the socket."""
        self.connection.write(data)

    def end(self) -> None:
        """Say no more."""
        try:
            self.connection.unwrap()
        except ssl.SSLError:
            pass  # it waits for the other side to say the same, or that is gone

    def to_send(self) -> bytes:
        """What is to go into the socket now."""
        return self._outgoing.read()
