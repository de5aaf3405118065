"""Serving the metrics over HTTP: ``/metrics``, for reading alone."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

from keyop.configuration.address import host_and_port, is_loopback
from keyop.errors import KeyopError
from keyop.metrics.exposition import Exposition
from keyop.metrics.observer import Observer

DEFAULT_PORT = 9464

_log = logging.getLogger("keyop.metrics")
# Prometheus has a few connections, and makes them anew where they were closed.
_MOST_CONNECTIONS = 64
_SILENCE_S = 30.0
_PAGE = b"<!doctype html><title>keyop</title><p>keyop: <a href=/metrics>metrics</a>\n"


class ListenError(KeyopError):
    """The address cannot be listened on."""


class MetricsServer(ThreadingHTTPServer):
    """Listens from the start on; `serve_forever` answers."""

    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, address: str, observer: Observer) -> None:
        """Raises `ListenError`, which names the address and the way out."""
        self.observer = observer
        self.exposition = Exposition(observer)
        # One look at a time: counters are compared with those of the look before.
        self.looking = threading.Lock()
        host, port = host_and_port(address, DEFAULT_PORT)
        self.host = host.lower()
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            family, _, _, _, where = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__((str(where[0]), int(where[1])), _Handler)
        except OSError as error:
            raise ListenError(
                f"cannot serve metrics at {address}: {error.strerror or error}; another program may listen there: give "
                "another address (--listen, metrics.listen_addr)"
            ) from error

    @property
    def url(self) -> str:
        """Where it listens."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/metrics"

    def allows(self, host: str) -> bool:
        """Whether a request's ``Host`` may be answered.

        Where only this machine listens, a name other than its own comes from a page in a browser whose name was made
        to point here (DNS rebinding). An address cannot be made to point elsewhere.
        """
        if not is_loopback(str(self.server_address[0])):
            return True
        name = host.lower()
        if name.rpartition(":")[2].isdecimal() and not name.endswith("]"):
            name = name.rpartition(":")[0]
        return name in ("", "localhost", self.host) or _is_address(name.strip("[]"))

    def process_request(self, request: object, client_address: object) -> None:
        """In a thread, if there are not too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """One connection."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked has gone, or stopped talking."""
        _log.debug("connection of %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    protocol_version = "HTTP/1.1"
    server_version = "keyop"
    sys_version = ""
    timeout = _SILENCE_S

    def do_GET(self) -> None:
        """Answer."""
        self._answer(lambda body: self.wfile.write(body))

    def do_HEAD(self) -> None:
        """The same without the text."""
        self._answer(lambda _: 0)

    def _answer(self, write: Callable[[bytes], object]) -> None:
        if not self.server.allows(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "Foreign Host", "This address is for localhost alone.")
            return
        path = self.path.partition("?")[0]
        if path == "/metrics":
            try:
                with self.server.looking:
                    body, content_type = self.server.exposition.text(self.headers.get("Accept", ""))
            except Exception as error:
                _log.exception("a scrape failed")
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=f"{type(error).__name__}: {error}")
                return
        elif path == "/":
            body, content_type = _PAGE, "text/html; charset=utf-8"
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no event."""
        _log.debug(format, *args)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
