"""The CN of a certificate file, read from its bytes: for whoever needs the name and nothing else.

`ssl` shows a certificate only after a handshake, which needs the key; and `cryptography` costs each publisher 9 MiB.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from keyop.errors import CertificateError
from keyop.federation import pem

_COMMON_NAME = bytes((0x06, 0x03, 0x55, 0x04, 0x03))  # object identifier 2.5.4.3
_VERSION = 0xA0
# Of ASN.1's texts: T61String, BMPString, UniversalString; the others are UTF-8 or part of it.
_ENCODINGS = {0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}


def common_name(path: str) -> str:
    """The CN of the first certificate in a file (PEM). Raises `CertificateError`: not readable, none or several CNs."""
    armoured = pem.certificates(path, pem.read(path))[0]
    try:
        body = base64.b64decode(b"".join(armoured.split()[2:-2]), validate=True)  # between BEGIN and END CERTIFICATE
        names = list(_common_names(body))
    except (ValueError, IndexError) as error:
        raise CertificateError(f"{path}: its certificate cannot be read") from error
    if len(names) != 1:
        raise CertificateError(f"{path}: its certificate has {len(names) or 'no'} common names; it needs one")
    return names[0]


def _common_names(certificate: bytes) -> Iterator[str]:
    ((_, whole),) = _elements(certificate)
    _, to_be_signed = next(_elements(whole))
    fields = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    subject = fields[4]  # behind serial number, algorithm, issuer and validity
    for _, part in _elements(subject):
        for _, pair in _elements(part):
            if pair.startswith(_COMMON_NAME):
                ((tag, text),) = _elements(pair[len(_COMMON_NAME) :])
                yield text.decode(_ENCODINGS.get(tag, "utf-8"))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of elements in DER that follow each other. Raises IndexError, ValueError."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            digits = length & 0x7F
            length = int.from_bytes(data[at : at + digits], "big")
            at += digits
        if at + length > len(data):
            raise ValueError("an element reaches beyond its end")
        yield tag, data[at : at + length]
        at += length
