"""Addresses of hubs, as users write them."""

from __future__ import annotations

DEFAULT_PORT = 7740
"""The port of a hub whose address names none."""


def is_loopback(host: str) -> bool:
    """Whether who listens here is reached from this machine only. Names other than ``localhost`` may be anywhere."""
    from ipaddress import ip_address

    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def checked_address(address: str) -> tuple[str, int]:
    """Host and port of an address that names its port, as addresses in a configuration do. Raises ValueError."""
    host, port = host_and_port(address)
    if ":" not in address or address.endswith("]"):
        raise ValueError(f"{address!r} names no port: write {address}:{DEFAULT_PORT}")
    return host, port


def host_and_port(address: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Host and port of ``host:port``, ``:7740``, ``[::1]:7740`` or ``host`` (port 7740); the host may be empty.

    Raises ValueError.
    """
    if address.isascii() and address.isdecimal():
        raise ValueError(
            f"{address!r} is not an address but a port: write host:{address}, or :{address} for all that this host has"
        )
    if any(sign in address for sign in "/@ \t\n"):
        raise ValueError(f"{address!r} is not an address, such as hub.example:{DEFAULT_PORT} (without ws:// or path)")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(default_port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif any(sign in host for sign in ":[]"):
        raise ValueError(f"{address!r} is not an address: an IPv6 address stands in brackets, [::1]:{DEFAULT_PORT}")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65_535):
        raise ValueError(f"{address!r} is not an address: the port is a number up to 65535")
    return host, int(port)
