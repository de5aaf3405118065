"""Who is let in: by the name under which the browser knows this host, by the page that asks, by the token.

Each web page may send requests to any address, this one included. The browser says for whom a request is meant (`Host`)
and which page sends it (`Origin`), and a page cannot make it lie. One whose own name suddenly points here (DNS
rebinding) still sends that name as `Host`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from keyop.configuration.address import is_loopback
from keyop.dashboard.token import Token


class Refused(Exception):
    """Not let in: an HTTP status, and a sentence for who reads it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Gate:
    """The rules for one address that is listened at."""

    def __init__(self, listen_host: str, allowed: Iterable[str], token: Token | None) -> None:
        """`listen_host` is empty, ``0.0.0.0`` or ``::`` for every address of this host."""
        self._token = token
        self._everywhere = listen_host in ("", "0.0.0.0", "::")
        self._names = {"localhost", *(name.casefold() for name in allowed)}
        if self._everywhere:
            own = socket.gethostname().casefold()
            self._names |= {own, f"{own}.local"}
        else:
            self._names.add(listen_host.casefold())
        self.cookie_name = "keyop-dashboard"
        """Cookies are those of a host, whatever the port: the port is added when it is known."""

    def check_host(self, hosts: list[str]) -> str:
        """The one `Host`, if it means this host. The port is not looked at: ssh may bring any. Raises `Refused`."""
        if len(hosts) != 1:
            raise Refused(400, "a request has one Host")
        name = _name(hosts[0])
        if name is None or not (name in self._names or self._is_own_address(name)):
            raise Refused(
                403,
                f"{hosts[0][:100]!r} is not a name of this dashboard; if it should be one: "
                "keyop dashboard --allow-host NAME, or dashboard.allowed_hosts",
            )
        return hosts[0]

    def _is_own_address(self, name: str) -> bool:
        """No page can have an address for its name unless it comes from there."""
        if is_loopback(name):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return self._everywhere

    def check_origin(self, origins: list[str], host: str) -> None:
        """A page that opens a WebSocket is one of ours; what is no browser names none. Raises `Refused`."""
        if not origins:
            return
        parts = urlsplit(origins[0]) if len(origins) == 1 else None
        if parts is None or parts.scheme not in ("http", "https") or parts.netloc.casefold() != host.casefold():
            raise Refused(403, f"a page of {origins[0][:100]!r} may not look in here")

    def check_token(self, cookies: list[str], authorizations: list[str]) -> None:
        """Cookie or header. Raises `Refused`."""
        if self._token is None:
            return
        for pair in ";".join(cookies).split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie_name and self._token.is_cookie(value):
                return
        for text in authorizations:
            kind, _, value = text.partition(" ")
            if kind.casefold() == "bearer" and self._token.is_text(value.strip()):
                return
        raise Refused(401, "this dashboard asks for its token: open /?token=TOKEN once")

    def cookie_for(self, query: str) -> str | None:
        """What a browser is to keep that shows the token in the address; None if there is none in it.

        Raises `Refused` for a wrong one.
        """
        shown = parse_qs(query).get("token")
        if self._token is None or not shown:
            return None
        if not self._token.is_text(shown[0]):
            raise Refused(403, "that is not the token of this dashboard")
        return f"{self.cookie_name}={self._token.cookie}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"


def _name(host: str) -> str | None:
    """The name or address in a `Host` header, without port and brackets."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    plain = parts.netloc == host and parts.username is None and not (parts.path or parts.query or parts.fragment)
    return parts.hostname if plain else None
