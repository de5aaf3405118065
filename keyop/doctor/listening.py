"""Whether the hub can listen where it is told to."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from keyop.configuration.address import host_and_port
from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject
from keyop.inspection import presence


def check(subject: Subject) -> Iterator[Finding]:
    """Bind to the address for a moment, unless the hub of this directory has it."""
    settings, directory = subject.settings, subject.directory
    if settings is None or directory is None or not settings.hub.enabled:
        return
    address = settings.hub.listen_addr
    running = [process for process in presence.attached(directory) if process.alive and process.role == "hub"]
    if running:
        yield Finding("listening", "ok", f"the hub of this directory runs, pid {running[0].pid}")
    else:
        yield try_to_bind(address)
    if not settings.hub.allowed_peers:
        way = "name those who may come: hub.allowed_peers: [{name: CN-OF-ITS-CERTIFICATE}]"
        yield Finding("listening", "warning", "hub.allowed_peers is empty: nobody gets in", way)


def try_to_bind(address: str) -> Finding:
    """Whether this process may listen there."""
    host, port = host_and_port(address)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(where)
                one.listen(1)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return Finding("listening", "ok", f"a hub can listen at {address}, without IPv6")
        return Finding("listening", "problem", f"a hub cannot listen at {address}: {_why(error)}", _remedy(error, port))
    return Finding("listening", "ok", f"a hub can listen at {address}")


def _why(error: OSError) -> str:
    return error.strerror if error.strerror and error.errno else str(error)


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"ss -ltnp 'sport = :{port}' names who has it; or choose another port in hub.listen_addr"
    if error.errno == errno.EACCES:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one in hub.listen_addr"
    return f"name an address of this host in hub.listen_addr ({os.uname().nodename}), or none: ':{port}'"
