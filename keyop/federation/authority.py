"""Making certificates: a CA of one's own, and what it signs for instances.

What is made here passes ``VERIFY_X509_STRICT``, and the Go program takes it as its own: P-384, SHA-384, and keys in
SEC1 form, because its ``keygen`` reads no other key of a CA. Keys of both forms are read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyop.errors import CertificateError, NameRuleError
from keyop.federation import certificates, pem
from keyop.federation.certificates import timestamp

Role = Literal["hub", "client", "both"]
"""What an instance's certificate is for. A certificate of role ``client`` cannot pose as a hub."""

BACKDATED = timedelta(hours=1)
"""Certificates are valid from this long before they are made: the clock of a peer may be behind."""

_CA_NAME = "keyop-ca"
_NAME = re.compile(r"[!-~]{1,64}")  # 64: the most that X.509 allows in a CN
_HOST = re.compile(r"[A-Za-z0-9._*-]{1,253}")
_USAGES: dict[Role, list[x509.ObjectIdentifier]] = {
    "hub": [ExtendedKeyUsageOID.SERVER_AUTH],
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "both": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
}
_SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM text, and what the certificate says."""

    certificate_pem: bytes
    key_pem: bytes
    certificate: certificates.Certificate


class Authority:
    """A CA that can sign: its certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: _SigningKey) -> None:
        self._certificate = certificate
        self._key = key

    @property
    def valid_until(self) -> datetime:
        """When the CA's own certificate ends, and with it all that it has signed."""
        return self._certificate.not_valid_after_utc

    @classmethod
    def make(cls, days: int, now: datetime | None = None) -> Pair:
        """A new CA, which signs itself. Raises `CertificateError` for too many days."""
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _CA_NAME)])
        builder = (
            _builder(name, name, key, days, now)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        return _pair(builder.sign(key, hashes.SHA384()), key)

    @classmethod
    def read(cls, certificate_path: str, key_path: str, now: datetime | None = None) -> Authority:
        """The CA of two files.

        Raises `CertificateError`, with the file's name: not readable, no certificate or key in it, key encrypted, key
        of another certificate, no CA, expired or not yet valid.
        """
        now = now or datetime.now(UTC)
        found = certificates.read(certificate_path)
        key = _read_key(key_path)
        certificate = next((one for one in found if one.public_key() == key.public_key()), None)
        if certificate is None:
            raise CertificateError(f"{key_path}: is not the key of {certificate_path}")
        if not _may_sign(certificate):
            raise CertificateError(f"{certificate_path}: is not the certificate of a CA, nothing can be signed with it")
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if ends <= now:
            raise CertificateError(f"{certificate_path}: expired at {timestamp(ends)}; make a new CA")
        if begins > now + BACKDATED:
            raise CertificateError(
                f"{certificate_path}: valid from {timestamp(begins)} on, and this host's clock says {timestamp(now)}"
            )
        return cls(certificate, key)

    def issue(
        self, name: str, sans: Sequence[str] = (), role: Role = "both", days: int = 730, now: datetime | None = None
    ) -> Pair:
        """A pair for the instance of this name: key, and a certificate with the name as CN and as SAN.

        ``sans`` are further host names and addresses under which a client may dial it. Raises `NameRuleError` for
        names, `CertificateError` for too many days.
        """
        if _NAME.fullmatch(name) is None:
            raise NameRuleError(f"{name!r} is no name for an instance: 1 to 64 printable ASCII characters, no blanks")
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        if subject == self._certificate.subject:
            # Issuer and subject alike are how a certificate says that it has signed itself.
            raise NameRuleError(f"{name!r} is the name of the CA; an instance needs another one")
        names = dict.fromkeys([_alternative(name, _NAME), *(_alternative(san, _HOST) for san in sans)])
        builder = (
            _builder(subject, self._certificate.subject, key, days, now)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[role]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        # Ed25519 brings its own hash.
        algorithm = None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA384()
        return _pair(builder.sign(self._key, algorithm), key)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            extension = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    try:
        until = now + timedelta(days=days)
    except OverflowError as error:
        raise CertificateError(f"{days} days from now is beyond the last date that a certificate can have") from error
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in used for name in _KEY_USAGES})


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    sec1 = serialization.PrivateFormat.TraditionalOpenSSL
    key_pem = key.private_bytes(serialization.Encoding.PEM, sec1, serialization.NoEncryption())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), key_pem, certificates.describe("", certificate))


def _alternative(text: str, rule: re.Pattern[str]) -> x509.GeneralName:
    try:
        if "%" not in text:  # with a zone, which a certificate cannot hold
            return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if rule.fullmatch(text) is None:
        raise NameRuleError(f"{text!r} is neither a host name nor an address (without a port, without brackets)")
    return x509.DNSName(text)


def _read_key(path: str) -> _SigningKey:
    text = pem.private_key(path, pem.read(path))
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError as error:
        raise CertificateError(f"{path}: the key is encrypted; `openssl pkey -in {path}` decrypts it") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path}: the key cannot be read: {error}") from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise CertificateError(f"{path}: a key of a kind that cannot sign certificates: EC, RSA and Ed25519 can")
    return key


def _may_sign(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as error:
        return error.oid == x509.KeyUsage.oid  # without it, any usage
