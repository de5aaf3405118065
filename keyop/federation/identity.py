"""Who is at the other end of a connection: the ``ssl`` contexts of hub and client, and what a certificate has to be.

Three looks at a peer's certificate, one behind the other:

- ``ssl`` during the handshake: TLS 1.3, signed by our CA, valid now, and its extended key usage: ``serverAuth`` for a
  hub, ``clientAuth`` for a client. With ``verify_hostname`` also that it names the host that was dialled.
- `peer_name` behind it: no CA, exactly one CN. A client may ask for a certain CN.
- The hub's list of allowed peers, which is not looked at here.

The standard library only: importing `cryptography` would cost hub and client 9 MiB each.
"""

from __future__ import annotations

import ssl
from typing import Any, Literal

from keyop.errors import PeerRefused

Role = Literal["hub", "client"]
"""Which end of a connection: the hub accepts, the client dials."""

VERIFY_FLAGS = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
"""Set whatever the Python release has as its own flags.

Not ``VERIFY_X509_STRICT``. The certificates of every Go release pass it (leaves without BasicConstraints too, by a look
at OpenSSL 3.0), but it refuses CAs that `openssl req -x509` makes, for a missing key usage, and each OpenSSL release
finds more to refuse. What matters here of what it checks (a leaf is no CA, a CA is one) is checked by `peer_name` and
`trust`.

``PARTIAL_CHAIN``: an intermediate CA in ``tls.ca`` is trusted without its root, and the root's other children are not.
"""

_LONGEST_NAME = 255


Connection = ssl.SSLObject | ssl.SSLSocket


def server_context() -> ssl.SSLContext:
    """A hub's context, which trusts nobody yet and has no certificate."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # No session tickets: with one a client comes back without showing its certificate, though that has expired, or
    # its CA was taken out of the file.
    context.num_tickets = 0
    return context


def client_context(*, verify_hostname: bool = False) -> ssl.SSLContext:
    """A client's context, which trusts nobody yet and has no certificate."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify_hostname
    return context


def _context(protocol: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags = VERIFY_FLAGS
    return context


def peer_name(connection: Connection, expect: str = "") -> str:
    """The identity of the other end, once the handshake is done: the CN of its certificate.

    With ``expect``, as of ``client.hubs[].expect_hub``, no other CN will do. Raises `PeerRefused`: no certificate, the
    certificate of a CA, no CN or several, a CN that cannot be shown, or not the one that was expected.
    """
    der = connection.getpeercert(binary_form=True)
    if not der:
        raise PeerRefused("the other end has shown no certificate")
    shown: dict[str, Any] = connection.getpeercert() or {}
    names = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    if is_ca(der):
        raise PeerRefused(f"the other end has shown the certificate of a CA ({', '.join(map(repr, names))})")
    if len(names) != 1:
        raise PeerRefused(f"the certificate of the other end has {len(names) or 'no'} common names; it needs one")
    (name,) = names
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise PeerRefused(f"the common name of the other end is empty, too long or not printable: {name[:80]!r}")
    if expect and name != expect:
        raise PeerRefused(f"the other end is {name!r}, and not {expect!r} as client.hubs[].expect_hub asks for")
    return str(name)


def is_ca(der: bytes) -> bool:
    """Whether a certificate could sign others.

    OpenSSL decides by extended key usage and key usage, so it takes a CA whose key usages allow both for a peer.
    """
    # ssl does not show BasicConstraints; but it counts the CAs in a store. 0.4 ms.
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(cadata=der)
    return bool(store.cert_store_stats()["x509_ca"])


def reason(error: ssl.SSLError) -> str:
    """Why a connection came to nothing, as the end of a sentence.

    Of a refusal only the side that refuses knows all; the other one gets an alert. In TLS 1.3 a client gets it with
    its first read, behind a handshake that looked good.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the other end is not accepted: {error.verify_message}"
    return _REASONS.get(error.reason or "", f"TLS failed: {error.reason or error}")


_REASONS = {
    "NO_SHARED_CIPHER": "the other end has no cipher of TLS 1.3",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other end has shown no certificate",
    "UNSUPPORTED_PROTOCOL": "the other end does not speak TLS 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other end does not speak TLS 1.3",
    "HTTP_REQUEST": "the other end does not speak TLS",
    "WRONG_VERSION_NUMBER": "the other end does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other end wants to see a certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the other end does not know the CA of our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, says the other end",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other end does not accept our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other end does not accept our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the extended key usage of our certificate is not for this, says the other",
}
