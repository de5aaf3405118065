"""What a certificate says. Making them: `keyop.federation.authority`.

These two modules alone need `cryptography`. Hub and client do without, see `keyop.federation.credentials`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyop.errors import CertificateError
from keyop.federation import pem

_USAGE_NAMES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

    subject_cn: str
    """The identity of the instance; empty where there is none, the first where there are several."""

    subject: str
    """The whole subject, ``CN=hub1,O=Example``."""

    issuer_cn: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime
    is_ca: bool

    ext_key_usage: tuple[str, ...]
    """``serverAuth``, ``clientAuth``, ...; numbers for those without a common name. Empty: not restricted."""

    serial: int

    fingerprint: str
    """SHA-256 over the certificate's DER, 64 hexadecimal digits."""


def inspect(path: str) -> list[Certificate]:
    """What the certificates in a file say, in their order. Raises `CertificateError`."""
    return [describe(path, certificate) for certificate in read(path)]


def read(path: str) -> list[x509.Certificate]:
    """The certificates in a file, at least one. Raises `CertificateError`."""
    return [_parse(path, text) for text in pem.certificates(path, pem.read(path))]


def timestamp(moment: datetime) -> str:
    """A time in UTC, to the second: ``2026-03-31T14:22:01Z``."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse(path: str, text: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise CertificateError(f"{path}: a certificate in it cannot be read: {error}") from error


def describe(path: str, certificate: x509.Certificate) -> Certificate:
    """What it says; ``path`` is for errors. Raises `CertificateError`."""
    try:
        extensions = certificate.extensions
    except ValueError as error:
        raise CertificateError(f"{path}: the extensions of a certificate cannot be read: {error}") from error
    dns_names: list[str] = []
    addresses: list[str] = []
    usages: list[str] = []
    is_ca = False
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            dns_names = value.get_values_for_type(x509.DNSName)
            addresses = [str(address) for address in value.get_values_for_type(x509.IPAddress)]
        elif isinstance(value, x509.ExtendedKeyUsage):
            usages = [_USAGE_NAMES.get(usage, usage.dotted_string) for usage in value]
        elif isinstance(value, x509.BasicConstraints):
            is_ca = value.ca
    return Certificate(
        subject_cn=_common_name(certificate.subject),
        subject=certificate.subject.rfc4514_string(),
        issuer_cn=_common_name(certificate.issuer),
        dns_names=tuple(dns_names),
        ip_addresses=tuple(addresses),
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
        is_ca=is_ca,
        ext_key_usage=tuple(usages),
        serial=certificate.serial_number,
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
