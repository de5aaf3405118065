"""One WebSocket over TLS, on either side: bytes of a socket to messages and back.

A shell over the state machine of `websockets`. Its own asyncio layer is not used: it counts frames where bytes have to
be bounded, gives up on messages of many fragments, follows redirects, and stops answering pings when nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidState
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from keyop.federation.tls import Tls

# Whole messages that nobody has taken: beyond this nothing is read from the socket. Short ones (acknowledgements) do
# not stop pings from being answered while a batch waits for the disk.
_WAITING_BYTES = 256 * 1024
_WAITING_MESSAGES = 64
_MESSAGE_COST_BYTES = 512
_WRITE_LIMIT_BYTES = 128 * 1024
_LINGER_S = 2.0


class WebSocketEnded(Exception):
    """The connection is over: closed by either side, or gone (code 1006)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocket(asyncio.Protocol):
    """A connection, made by `accept` or `dial`. Belongs to one event loop; one task receives, one sends."""

    def __init__(self, protocol: Protocol, tls: Tls) -> None:
        self._protocol = protocol
        self._tls = tls
        self._transport: asyncio.Transport
        self._opening: Request | Response | None = None
        self._messages: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._part: bytearray | None = None
        self._is_text = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._lost_by: Exception | None = None
        self._is_eof_sent = False
        self._is_mute = True
        self._pings: dict[bytes, float] = {}
        self.is_deaf = False
        """Whether nothing is read now, because what came before was not taken."""
        self.heard_s = time.monotonic()
        """When anything came last."""
        self.round_trip_s = 0.0
        """From the last ping to its answer."""

    # ---- the opening

    async def secure(self) -> None:
        """Wait for TLS; the other side has shown its certificate then. Raises `OSError`, of that `ssl.SSLError`."""
        await self._until(lambda: self._tls.is_up)
        if self._lost.is_set() or self._lost_by is not None:
            raise self._failure()

    async def shake_hands(self) -> None:
        """Become a WebSocket. Raises `OSError`: in TLS 1.3 a client hears only now that its certificate is refused."""
        protocol = self._protocol
        if isinstance(protocol, ClientProtocol):
            protocol.send_request(protocol.connect())
            self._flush()
        await self._until(lambda: self._opening is not None or protocol.handshake_exc is not None)
        if isinstance(protocol, ServerProtocol) and isinstance(self._opening, Request) and not self._lost.is_set():
            protocol.send_response(protocol.accept(self._opening))
            self._flush()
        if protocol.state is not State.OPEN:
            raise self._failure()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._lost.is_set() and self._lost_by is None:
            self._changed.clear()
            await self._changed.wait()

    def _failure(self) -> OSError:
        if isinstance(self._lost_by, OSError):
            return self._lost_by
        if self._tls.is_up and self._is_mute:
            return ConnectionAbortedError("it left after the TLS handshake, without a word")
        error = self._protocol.handshake_exc
        why = str(error) if isinstance(error, InvalidHandshake) else "the other end has closed"
        return ConnectionError(f"no WebSocket is spoken there: {why}" if self._tls.is_up else why)

    @property
    def certificate(self) -> ssl.SSLObject:
        """Where the other side's certificate can be asked for."""
        return self._tls.connection

    def limit_messages(self, longest_bytes: int) -> None:
        """From here on take messages up to this length; a longer one ends the connection with 1009."""
        protocol: Any = self._protocol
        protocol.max_size = protocol.max_message_size = longest_bytes  # the name depends on the release

    @property
    def is_compressed(self) -> bool:
        """Whether both sides wanted permessage-deflate."""
        return bool(self._protocol.extensions)

    # ---- messages

    async def receive(self) -> str | bytes:
        """The next message: text as str, binary as bytes. Raises `WebSocketEnded`."""
        while not self._messages:
            if self._lost.is_set() or self._lost_by is not None or self._protocol.state is not State.OPEN:
                raise self._ended()
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._waiting_bytes -= len(message) + _MESSAGE_COST_BYTES
        if self.is_deaf and self._has_room():
            self._hear_again()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send one message; returns when there is room for the next. What cannot be sent any more is dropped."""
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except InvalidState:
            return  # `receive` tells why
        self._flush()
        await self._writable.wait()

    def ping(self) -> None:
        """Ask the other side whether it is there: `heard_s` and `round_trip_s` tell the answer."""
        payload = len(self._pings).to_bytes(4, "big")
        self._pings[payload] = time.monotonic()
        with contextlib.suppress(InvalidState):
            self._protocol.send_ping(payload)
            self._flush()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and return when the other side has closed. It may never do so: set a time limit, `abort`."""
        with contextlib.suppress(InvalidState):
            self._protocol.send_close(code, reason)
            self._flush()
        if self.is_deaf:
            self._hear_again()
        await self._lost.wait()

    async def leave(self) -> None:
        """Be gone, when what was said last has arrived, or after two seconds.

        What the other side goes on sending is heard until then: unread, it would have the kernel reset the connection,
        and what was said last (why it is refused) be dropped at the other side.
        """
        if self._is_eof_sent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _LINGER_S)
        self.abort()

    def abort(self) -> None:
        """Be gone at once."""
        if not self._lost.is_set():  # asyncio stumbles over a transport that is closed already
            self._transport.abort()

    def _ended(self) -> WebSocketEnded:
        protocol = self._protocol
        # What the peer said, else what `websockets` said for us: a message too long, text that is none.
        close = protocol.close_rcvd or protocol.close_sent
        if close is not None:
            return WebSocketEnded(close.code, close.reason)
        return WebSocketEnded(CloseCode.ABNORMAL_CLOSURE, str(self._lost_by or ""))

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands; a client begins."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_LIMIT_BYTES)
        if isinstance(self._protocol, ClientProtocol):
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.heard_s = time.monotonic()
        if self._lost_by is not None:
            return
        try:
            said = self._tls.receive(data)
        except ssl.SSLError as error:
            self._lost_by = error
            self._write_out(is_last=True)  # the alert, which says why
            self._changed.set()
            return
        if said:
            self._is_mute = False
            self._protocol.receive_data(said)
        if self._tls.has_ended:
            self._protocol.receive_eof()
        self._act()

    def eof_received(self) -> None:
        """No more will come."""
        self._protocol.receive_eof()
        self._act()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._protocol.receive_eof()
        self._lost_by = self._lost_by or exc
        self._lost.set()
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """The other side does not take what is sent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It takes it again."""
        self._writable.set()

    # ---- inside

    def _act(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            else:
                self._opening = event
        if self._writable.is_set() or self._protocol.state is not State.OPEN:
            self._flush()
        else:
            # Answers to pings, of somebody who does not read: they would pile up.
            self._protocol.data_to_send()
        self._changed.set()
        if not self.is_deaf and not self._has_room() and not self._transport.is_closing():
            self.is_deaf = True
            self._transport.pause_reading()

    def _has_room(self) -> bool:
        return self._waiting_bytes < _WAITING_BYTES and len(self._messages) < _WAITING_MESSAGES

    def _hear_again(self) -> None:
        self.is_deaf = False
        self.heard_s = time.monotonic()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            sent_s = self._pings.pop(bytes(frame.data), None)
            if sent_s is not None:
                self._pings.clear()
                self.round_trip_s = time.monotonic() - sent_s
        elif self._protocol.close_sent is not None and self._protocol.close_rcvd is None:
            return  # we have said goodbye; what came before the other side's goodbye still counts
        elif frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._put(bytes(frame.data))
            else:
                self._part = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._part is not None:
            self._part += frame.data
            if frame.fin:
                whole, self._part = bytes(self._part), None
                self._put(whole)

    def _put(self, data: bytes) -> None:
        try:
            self._messages.append(data.decode() if self._is_text else data)
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")
        else:
            self._waiting_bytes += len(self._messages[-1]) + _MESSAGE_COST_BYTES

    def _flush(self) -> None:
        is_end = False
        for data in self._protocol.data_to_send():
            if data:
                with contextlib.suppress(ssl.SSLError):  # the other side says no more, and hears no more
                    self._tls.write(data)
            else:
                is_end = True
        if is_end:
            self._tls.end()
        self._write_out(is_last=is_end)

    def _write_out(self, *, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        data = self._tls.to_send()
        if data and not self._is_eof_sent:
            self._transport.write(data)
        if is_last and not self._is_eof_sent:
            self._is_eof_sent = True
            with contextlib.suppress(OSError):  # the other side was quicker
                self._transport.write_eof()  # and go on hearing what comes: see `leave`


async def accept(plain: socket.socket, context: ssl.SSLContext, longest_bytes: int, *, compression: bool) -> WebSocket:
    """The hub's end of a connection that came in; `WebSocket.secure` and `WebSocket.shake_hands` are next.

    ``longest_bytes``: of a message, until `WebSocket.limit_messages` says otherwise. Raises `OSError`.
    """
    # 4 KiB windows: with larger ones each connection costs 64 KiB more.
    deflate = [ServerPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)]
    protocol = ServerProtocol(extensions=deflate if compression else None, max_size=longest_bytes)
    tls = Tls(context, is_server=True)
    _, websocket = await asyncio.get_running_loop().connect_accepted_socket(lambda: WebSocket(protocol, tls), plain)
    return websocket


async def dial(host: str, port: int, context: ssl.SSLContext, longest_bytes: int, *, compression: bool) -> WebSocket:
    """A client's end of a connection to a hub. As `accept`."""
    shown = f"[{host}]" if ":" in host else host
    deflate = [ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)]
    protocol = ClientProtocol(
        parse_uri(f"wss://{shown}:{port}/"), extensions=deflate if compression else None, max_size=longest_bytes
    )
    tls = Tls(context, is_server=False, host=host)
    _, websocket = await asyncio.get_running_loop().create_connection(
        lambda: WebSocket(protocol, tls), host, port, happy_eyeballs_delay=0.25
    )
    return websocket
