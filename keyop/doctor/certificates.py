"""Whether hub and client can use their certificates, and how long still."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from keyop.configuration.settings import TlsSettings
from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject
from keyop.errors import CertificateError
from keyop.federation.credentials import Credentials
from keyop.federation.identity import Role


def check(subject: Subject) -> Iterator[Finding]:
    """Those of section ``tls``, as hub and client would read them."""
    settings = subject.settings
    if settings is None:
        return
    roles: list[Role] = []
    if settings.hub.enabled:
        roles.append("hub")
    if settings.client.enabled:
        roles.append("client")
    if not roles:
        yield Finding("certificates", "ok", "neither hub nor client is enabled, so no certificates are needed")
        return
    said: set[str] = set()
    for role in roles:
        for finding in of_role(settings.tls, role):
            if finding.text not in said:
                said.add(finding.text)
                yield finding


def of_role(tls: TlsSettings, role: Role) -> Iterator[Finding]:
    """What a hub or a client would say of them at its start, and what other programs may say."""
    values = {"role": role}
    try:
        credentials = Credentials(tls, role)
    except CertificateError as error:
        way = "keyop keygen inspect FILE shows what is there, keyop keygen instance makes a new pair"
        yield Finding("certificates", "problem", str(error), way, values)
        return
    warnings = credentials.warnings()
    for text in warnings:
        what, _, remedy = text.partition("; ")
        over = "expired" in what or "valid from" in what
        yield Finding("certificates", "problem" if over else "warning", what, remedy, values)
    objection = strict_objection(tls)
    if objection:
        yield Finding(
            "certificates",
            "note",
            f"{tls.cert}: keyop takes it, but a program that keeps to RFC 5280 to the letter would not: {objection}",
            "only where other programs are to talk to this host: make CA and certificates anew with keyop keygen",
            values,
        )
    if not warnings:
        yield Finding("certificates", "ok", f"{tls.cert}: {credentials.name!r} can be {role}", "", values)


def strict_objection(tls: TlsSettings) -> str:
    """What `ssl.VERIFY_X509_STRICT` finds wrong, which Python sets from 3.13 on; empty: nothing."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(tls.cert, tls.key)
    # Whoever asks looks at the purpose, too, which is not the question here: so the client asks, for any.
    client.check_hostname = False
    client.load_verify_locations(tls.ca)
    client.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return "" if error.verify_code in _OTHER_REASONS else error.verify_message
        except ssl.SSLError:
            return ""
    return ""


_OTHER_REASONS = {9, 10, 26}
"""Codes of OpenSSL: not valid yet, expired, not for this purpose. They are no matter of strictness."""
