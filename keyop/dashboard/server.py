"""The server: HTTP for the page, a WebSocket for what moves."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from keyop.configuration.address import host_and_port, is_loopback
from keyop.dashboard.gate import Gate, Refused
from keyop.dashboard.pages import Pages, sentence, welcome
from keyop.dashboard.pictures import Pictures
from keyop.dashboard.token import read_token
from keyop.errors import ChannelNameError, KeyopError
from keyop.live.messages import last_messages
from keyop.live.sampler import Sampler, require
from keyop.names import check_channel
from keyop.storage.directory import DataDirectory

DEFAULT_PORT = 7741
_MOST_BROWSERS = 512
_LONGEST_QUESTION_BYTES = 4096
_READERS = 2
_INTERVAL_S = 1.0
_NOTE_EVERY_S = 60.0

_log = logging.getLogger("keyop.dashboard")
# What strangers send is no event of ours.
_quiet = logging.getLogger("keyop.dashboard.connections")
_quiet.setLevel(logging.CRITICAL)


class DashboardError(KeyopError):
    """It cannot be served so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How it is served."""

    listen_addr: str
    token_file: str = ""
    allowed_hosts: tuple[str, ...] = ()


class Dashboard:
    """Serves one data directory."""

    def __init__(self, directory: DataDirectory, options: Options) -> None:
        """Raises `DashboardError`, `TokenError`."""
        self._directory = directory
        self._options = options
        try:
            self._host, self._port = host_and_port(options.listen_addr, DEFAULT_PORT)
        except ValueError as error:
            raise DashboardError(f"dashboard.listen_addr: {error}") from error
        if not options.token_file and not is_loopback(self._host):
            raise DashboardError(
                f"dashboard.listen_addr = {options.listen_addr!r}: where others may connect, a token is needed: "
                "--token-file FILE, or dashboard.token_file"
            )
        token = read_token(options.token_file) if options.token_file else None
        self._gate = Gate(self._host, options.allowed_hosts, token)
        self._pages = Pages()
        self._pictures = Pictures(lambda: Sampler(directory), _INTERVAL_S)
        self._reading = asyncio.Semaphore(_READERS)
        self._browsers = 0
        self._next_note_s = 0.0
        self._server: Server | None = None

    async def start(self) -> str:
        """Listen; the address of the page. Raises `DashboardError`, `DataDirectoryError`."""
        require(self._directory)
        try:
            self._server = await serve(
                self._show,
                self._host or None,
                self._port,
                process_request=self._answer,
                compression=None,  # for each browser anew, it would take more than all the rest
                max_size=_LONGEST_QUESTION_BYTES,
                max_queue=2,
                server_header=None,
                logger=_quiet,
            )
        except OSError as error:
            raise DashboardError(_cannot_listen(self._options.listen_addr, error)) from error
        host, port = self._server.sockets[0].getsockname()[:2]
        self._gate.cookie_name += f"-{port}"
        if self._host in ("", "0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    async def close(self) -> None:
        """Send everybody away."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await self._pictures.close()

    # ---- HTTP

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request; None lets the WebSocket begin."""
        if getattr(request, "method", "GET") != "GET":  # older releases of websockets refuse the others themselves
            return sentence(405, "this dashboard can only be looked at")
        headers = request.headers
        parts = urlsplit(request.path)
        try:
            host = self._gate.check_host(headers.get_all("Host"))
            if parts.path == "/" and (cookie := self._gate.cookie_for(parts.query)):
                return welcome(cookie)
            self._gate.check_token(headers.get_all("Cookie"), headers.get_all("Authorization"))
            if parts.path != "/live":
                return self._pages.get(parts.path)
            self._gate.check_origin(headers.get_all("Origin"), host)
        except Refused as refused:
            self._note_refusal(connection, refused)
            return sentence(refused.status, refused.reason)
        if self._browsers >= _MOST_BROWSERS:
            return sentence(503, f"{_MOST_BROWSERS} browsers look on already")
        return None

    def _note_refusal(self, connection: ServerConnection, refused: Refused) -> None:
        """Some page may try again and again: that is no reason to fill the log."""
        now_s = time.monotonic()
        if now_s >= self._next_note_s:
            self._next_note_s = now_s + _NOTE_EVERY_S
            _log.warning("refused %s: %s", connection.remote_address[0], refused.reason)

    # ---- the WebSocket

    async def _show(self, connection: ServerConnection) -> None:
        self._browsers += 1
        self._pictures.enter()
        tasks = [
            asyncio.create_task(work)
            for work in (self._send(connection), self._answer_questions(connection), connection.wait_closed())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._browsers -= 1
            self._pictures.leave()
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception) and not isinstance(ended, ConnectionClosed):
                    _log.error("a browser is sent away", exc_info=ended)

    async def _send(self, connection: ServerConnection) -> None:
        """Picture after picture; one that is to be whole where the browser has missed the one before."""
        number = 0
        while True:
            picture = await self._pictures.after(number)
            is_next = number and picture.number == number + 1
            await connection.send(picture.changes if is_next else picture.whole)
            number = picture.number

    async def _answer_questions(self, connection: ServerConnection) -> None:
        """One after the other: ``{"open": CHANNEL}``. Ends with the connection."""
        async for question in connection:
            channel = _channel_of(question)
            if channel is None:
                await connection.close(1008, "not a question")
                return
            async with self._reading:
                answer = await asyncio.to_thread(self._messages, channel)
            await connection.send(json.dumps({"messages": answer}, separators=(",", ":")))

    def _messages(self, channel: str) -> dict[str, Any]:
        try:
            rows = [message.to_json() for message in last_messages(self._directory, channel)]
        except OSError as error:
            return {"channel": channel, "rows": [], "trouble": f"{error.filename or channel}: {error.strerror}"}
        return {"channel": channel, "rows": rows, "trouble": None}


def _channel_of(question: str | bytes) -> str | None:
    """The channel that is asked for; None for what is no question."""
    try:
        return check_channel(json.loads(question)["open"])
    except (ValueError, LookupError, TypeError, RecursionError, ChannelNameError):
        return None


def _cannot_listen(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "another program listens there; choose another port (--listen 127.0.0.1:0 takes a free one)"
    elif error.errno == errno.EACCES:
        why = "this user may not listen there; ports below 1024 are root's"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "that is not an address of this host"
    else:
        why = error.strerror or str(error)
    return f"dashboard.listen_addr = {address!r}: {why}"
