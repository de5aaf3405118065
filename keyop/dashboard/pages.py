"""What is answered over HTTP: the page's files, and sentences."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files

from websockets.datastructures import Headers
from websockets.http11 import Response

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    # Where browsers look by themselves when an answer is a sentence.
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}
_SAFETY = {
    # Nothing but what this very server sends; no frame around it, no form in it, and no script in its text.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Pages:
    """The files of the package, read once."""

    def __init__(self) -> None:
        here = files("keyop.dashboard")
        self._files = {path: (kind, (here / name).read_bytes()) for path, (name, kind) in _FILES.items()}

    def get(self, path: str) -> Response:
        """The answer to a path."""
        found = self._files.get(path)
        if found is None:
            return sentence(404, "there is no such page")
        kind, body = found
        return _response(200, kind, body)


def sentence(status: int, text: str) -> Response:
    """A status with a sentence."""
    return _response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def welcome(cookie: str) -> Response:
    """Let the browser keep the cookie, and open the page without the token in its address.

    Not a redirect: a browser that was sent here by a page of another site would not show a strict cookie there yet.
    """
    response = sentence(200, "The token is right.")
    response.headers["Set-Cookie"] = cookie
    response.headers["Refresh"] = "0; url=/"
    return response


def _response(status: int, kind: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **_SAFETY})
    return Response(status, HTTPStatus(status).phrase, headers, body)
