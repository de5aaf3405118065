"""Certificates for tests: a CA with its instances, certificates that `keyop keygen` would not make, and connections."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from child import DEADLINE_S
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from keyop.configuration.settings import TlsSettings
from keyop.federation.authority import Authority

GO = Path(__file__).parent / "fixtures" / "wire-v1"
"""The CA and the hub's pair of a Go program 1.4.1: no BasicConstraints in the hub's certificate."""

GO_TLS = TlsSettings(cert=str(GO / "hub.crt"), key=str(GO / "hub.key"), ca=str(GO / "ca.crt"))

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, so that tests with recorded certificates pass in 2029 too."""


class Pki:
    """A CA in a directory, and what it signs there."""

    def __init__(self, directory: Path, days: int = 730, now: datetime | None = None) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        pair = Authority.make(days, now)
        self.ca = write(directory / "ca.crt", pair.certificate_pem)
        self.ca_key = write(directory / "ca.key", pair.key_pem)

    def instance(self, name: str, *, file: str = "", **options: Any) -> TlsSettings:
        """A pair, in ``{file}.crt`` and ``{file}.key``; ``options`` are those of `Authority.issue`."""
        pair = Authority.read(str(self.ca), str(self.ca_key)).issue(name, **options)
        return self.files(file or name, pair.certificate_pem, pair.key_pem)

    def odd(self, file: str, subject: x509.Name, *extensions: x509.ExtensionType) -> TlsSettings:
        """A pair with exactly these extensions."""
        key = ec.generate_private_key(ec.SECP384R1())
        ca = x509.load_pem_x509_certificate(self.ca.read_bytes())
        certificate = _sign(subject, key, ca.subject, _key_of(self.ca_key), extensions)
        return self.files(file, *pem_of(certificate, key))

    def files(self, file: str, certificate_pem: bytes, key_pem: bytes) -> TlsSettings:
        """Settings that name them and this CA."""
        cert = write(self.directory / f"{file}.crt", certificate_pem)
        key = write(self.directory / f"{file}.key", key_pem)
        return TlsSettings(cert=str(cert), key=str(key), ca=str(self.ca))


def write(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


def cn(*names: str) -> x509.Name:
    with warnings.catch_warnings(action="ignore"):  # of names that a certificate should not have
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in names])


def self_signed(subject: x509.Name, *extensions: x509.ExtensionType) -> tuple[bytes, bytes]:
    """Certificate and key with exactly these extensions, as PEM."""
    key = ec.generate_private_key(ec.SECP384R1())
    return pem_of(_sign(subject, key, subject, key, extensions), key)


def pem_of(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    sec1 = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), sec1


def _key_of(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: tuple[x509.ExtensionType, ...],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA384())


@dataclass
class Meeting:
    """What the two ends of a connection found: what their check returned, or the error."""

    hub: Any = None
    client: Any = None


def meet(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    hub_checks: Callable[[ssl.SSLSocket], Any],
    client_checks: Callable[[ssl.SSLSocket], Any],
    address: str = "127.0.0.1",
) -> Meeting:
    """One connection over TCP. The client reads until the hub closes: TLS 1.3 tells it of a refusal that late."""
    met = Meeting()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            plain, _ = listener.accept()
            plain.settimeout(DEADLINE_S)
            try:
                with server.wrap_socket(plain, server_side=True) as connection:
                    met.hub = hub_checks(connection)
                    connection.sendall(b"in")
            except Exception as error:
                met.hub = error
            finally:
                plain.close()

        hub = threading.Thread(target=accept)
        hub.start()
        try:
            plain = socket.create_connection(listener.getsockname(), DEADLINE_S)
            with client.wrap_socket(plain, server_hostname=address) as connection:
                found = client_checks(connection)
                while connection.recv(16):
                    pass
                met.client = found
        except Exception as error:
            met.client = error
        finally:
            plain.close()
            hub.join(DEADLINE_S)
    return met
