"""Which releases work together here."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject
from keyop.version import __version__

_NEEDED = ("posix-ipc", "click", "pydantic", "pyyaml", "watchfiles", "websockets")
_OPTIONAL = {
    "msgspec": "messages are written and read about ten times slower",
    "uuid-utils": "ids are made in Python, more slowly",
    "cryptography": "keyop keygen does not work",
}


def check(_subject: Subject) -> Iterator[Finding]:
    """Python, keyop, its libraries, the kernel, and how many processors there are."""
    found = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    values = {
        "keyop": __version__,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "openssl": ssl.OPENSSL_VERSION,
        "cpus": os.cpu_count(),
        **{name: value or None for name, value in found.items()},
    }
    system = f"{os.uname().sysname} {values['kernel']}"
    text = f"keyop {__version__}, Python {values['python']}, {system}, {ssl.OPENSSL_VERSION}"
    yield Finding("versions", "ok", text, "", values)
    missing = [name for name in _NEEDED if not found[name]]
    if missing:
        way = f"pip install {' '.join(missing)}"
        yield Finding("versions", "problem", f"not installed: {', '.join(missing)}", way)
    for name, loss in _OPTIONAL.items():
        if not found[name]:
            yield Finding("versions", "note", f"{name} is not installed: {loss}", f"pip install {name}")
    if os.uname().sysname != "Linux":
        yield Finding("versions", "warning", f"this is {os.uname().sysname}: nobody has run keyop's tests there")
    if (os.cpu_count() or 1) == 1:
        text = "there is one processor: who waits for a message sleeps at once, whatever ipc.spin_us says"
        yield Finding("versions", "note", text)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
