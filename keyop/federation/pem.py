"""PEM text: certificates and keys, cut out of files that may hold other things besides.

`openssl` puts plain text before a certificate and parameters before a key; `ssl` and `cryptography` stumble over one or
the other.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from keyop.errors import CertificateError

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile(_BEGIN + rb"[^-]*-----END CERTIFICATE-----\n?")
_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----\n?", re.DOTALL)


def read(path: str) -> bytes:
    """The bytes of a file. Raises `CertificateError`."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise CertificateError(f"{path}: {error.strerror}; `keyop keygen` makes certificates and keys") from error
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from error


def certificates(path: str, text: bytes) -> list[bytes]:
    """Every certificate in what stands in a file, at least one. Raises `CertificateError`."""
    found = _CERTIFICATE.findall(text)
    if text.count(_BEGIN) != len(found):
        # Somebody is writing it. Of a CA file with two certificates the first would do, and the second be forgotten.
        raise CertificateError(f"{path}: a certificate in it has no end")
    if not found:
        holds = "a key and no certificate" if _KEY.search(text) else "no certificate (PEM)"
        raise CertificateError(f"{path}: holds {holds}")
    return found


def private_key(path: str, text: bytes) -> bytes:
    """The first private key in what stands in a file. Raises `CertificateError`."""
    found = _KEY.search(text)
    if found is None:
        holds = "a certificate and no key" if _BEGIN in text else "no private key (PEM)"
        raise CertificateError(f"{path}: holds {holds}")
    return found[0]


def open_to_others(path: str) -> str | None:
    """A warning where users outside of owner and group may read or change a key file."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None
    if not mode & stat.S_IRWXO:
        return None
    return f"{path}: every user of this host can get at this key (mode {mode:04o}); chmod 600 {path}"
