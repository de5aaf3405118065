"""The other end of a connection, under a test's control: it sends what it is told, and closes nothing by itself."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from typing import Any, Self

from child import DEADLINE_S
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from keyop.configuration.settings import TlsSettings
from keyop.federation.wire import client_hello, frame_of

LONGEST_BYTES = 1 << 26


class Gone(Exception):
    """The other side has dropped the connection, without a close frame if `code` is 1006."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def client_context(tls: TlsSettings | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsSocket:
    """TLS over a blocking socket, for one thread that receives and others that send: an `ssl.SSLSocket` is not."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, host: str | None = None) -> None:
        """Shakes hands. Raises `OSError`."""
        self.plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=host is None, server_hostname=host)
        self._lock = threading.RLock()
        plain.settimeout(DEADLINE_S)
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._write_out()
                    self._read_in()
            self._write_out()
        except BaseException as error:
            if isinstance(error, ssl.SSLError):
                self._write_out()
            plain.close()
            raise
        self.getpeercert = self._tls.getpeercert

    def _write_out(self) -> None:
        data = self._outgoing.read()
        if data:
            self.plain.sendall(data)

    def _read_in(self) -> None:
        data = self.plain.recv(65_536)
        if not data:
            raise ConnectionError("the other end has closed")
        self._incoming.write(data)

    def recv(self, timeout: float) -> bytes:
        """What comes next; empty at the end. Raises `OSError`, TimeoutError."""
        while True:
            with self._lock:
                try:
                    return self._tls.read(65_536)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    return b""
            try:
                if not select.select([self.plain], [], [], timeout)[0]:
                    raise TimeoutError
                data = self.plain.recv(65_536)
            except ValueError:
                return b""  # another thread has closed it
            if not data:
                return b""
            with self._lock:
                self._incoming.write(data)

    def sendall(self, data: bytes) -> None:
        with self._lock:
            self._tls.write(data)
            self._write_out()

    def close(self) -> None:
        try:
            self.plain.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.plain.close()


class Wire:
    """A WebSocket on a blocking socket, for one thread that receives and others that send."""

    def __init__(self, connection: TlsSocket, protocol: Protocol) -> None:
        self.connection = connection
        self.protocol = protocol
        self._messages: list[str | bytes] = []
        self._parts: list[bytes] = []
        self._is_text = False
        self._sending = threading.RLock()
        self.opening: Request | Response | None = None

    def _flush(self) -> None:
        with self._sending:
            for data in self.protocol.data_to_send():
                if data:  # the Go program does not close TCP, whatever the protocol says
                    self.connection.sendall(data)

    def send(self, message: str | bytes, *, fragment_bytes: int = 0) -> None:
        """Send one message, perhaps in fragments."""
        is_text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        first = self.protocol.send_text if is_text else self.protocol.send_binary
        with self._sending:
            if not fragment_bytes or len(data) <= fragment_bytes:
                first(data)
            else:
                first(data[:fragment_bytes], fin=False)
                for at in range(fragment_bytes, len(data), fragment_bytes):
                    is_last = at + fragment_bytes >= len(data)
                    self.protocol.send_continuation(data[at : at + fragment_bytes], fin=is_last)
            self._flush()

    def send_raw(self, data: bytes) -> None:
        """Bytes inside TLS that need not be WebSocket."""
        self.connection.sendall(data)

    def step(self, timeout: float = DEADLINE_S) -> None:
        """Take what comes next from the socket. Raises `Gone`, TimeoutError."""
        try:
            data = self.connection.recv(timeout)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            else:
                self.opening = event
        if data:
            self._flush()

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            self._parts.append(bytes(frame.data))
            if frame.fin:
                data = b"".join(self._parts)
                self._parts.clear()
                self._messages.append(data.decode() if self._is_text else data)

    def receive(self, timeout: float = DEADLINE_S) -> str | bytes:
        """The next message. Raises `Gone`, TimeoutError."""
        while not self._messages:
            if self.protocol.state is not State.OPEN:
                close = self.protocol.close_rcvd
                raise Gone(close.code, close.reason) if close else Gone(CloseCode.ABNORMAL_CLOSURE, "")
            self.step(timeout)
        return self._messages.pop(0)

    def closed(self, timeout: float = DEADLINE_S) -> tuple[int, str]:
        """Wait for the end, passing over what comes before: code and reason."""
        try:
            while True:
                self.receive(timeout)
        except Gone as gone:
            return gone.code, gone.reason

    def drop(self) -> None:
        """Drop TCP, as the Go program does at every normal end."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()


def tls_to(address: str, tls: TlsSettings | None, context: ssl.SSLContext | None = None) -> TlsSocket:
    """TLS to a hub. Raises `OSError`."""
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), DEADLINE_S)
    return TlsSocket(plain, context or client_context(tls), host=host)


def connect(address: str, tls: TlsSettings, **options: Any) -> Wire:
    """A WebSocket to a hub, without a handshake of ours."""
    protocol = ClientProtocol(parse_uri(f"wss://{address}/"), max_size=LONGEST_BYTES, **options)
    wire = Wire(tls_to(address, tls), protocol)
    protocol.send_request(protocol.connect())
    wire._flush()
    while wire.opening is None:
        wire.step()
        if protocol.state is State.CLOSED:
            raise Gone(CloseCode.ABNORMAL_CLOSURE, str(protocol.handshake_exc))
    if protocol.handshake_exc is not None:
        raise protocol.handshake_exc
    return wire


def greet(
    address: str,
    tls: TlsSettings,
    *subscribe: str,
    ephemeral: bool = False,
    features: tuple[str, ...] = (),
    **options: Any,
) -> Wire:
    """A WebSocket to a hub whose handshake is done."""
    wire = connect(address, tls, **options)
    wire.send(client_hello(tls.cert.rpartition("/")[2], subscribe, ephemeral, features))
    answer = wire.receive()
    assert isinstance(answer, str)
    assert json.loads(answer)["role"] == "hub", answer
    return wire


def accept(listening: socket.socket, tls: TlsSettings) -> Wire:
    """The hub's end of the next connection."""
    plain, _ = listening.accept()
    connection = TlsSocket(plain, server_context(tls))
    protocol = ServerProtocol(max_size=LONGEST_BYTES)
    wire = Wire(connection, protocol)
    while wire.opening is None:
        wire.step()
    assert isinstance(wire.opening, Request)
    protocol.send_response(protocol.accept(wire.opening))
    wire._flush()
    return wire


def batch(*lines: bytes) -> bytes:
    return frame_of(lines)


def acknowledged(wire: Wire, timeout: float = DEADLINE_S) -> str:
    """The id in the next message, which is an acknowledgement."""
    text = wire.receive(timeout)
    assert isinstance(text, str), text
    return str(json.loads(text)["last_id"])
