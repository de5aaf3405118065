"""Certificates as peers see them: real TLS over loopback, with good and with odd certificates; reloading."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, ROOT
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki import GO_TLS, NO_CHECK_TIME, Meeting, Pki, cn, meet, self_signed, write

from keyop.configuration.settings import TlsSettings
from keyop.errors import CertificateError, PeerRefused
from keyop.federation import identity
from keyop.federation.authority import Authority
from keyop.federation.credentials import Credentials
from keyop.federation.identity import client_context, peer_name, server_context

_PAST = datetime(2020, 1, 1, tzinfo=UTC)
_BOTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def hub(pki: Pki) -> Credentials:
    return Credentials(pki.instance("hub1"), "hub")


@pytest.fixture
def client(pki: Pki) -> Credentials:
    return Credentials(pki.instance("garage"), "client")


def untried(context: ssl.SSLContext, tls: TlsSettings) -> ssl.SSLContext:
    """A context with files that `Credentials` would refuse to use."""
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    return context


def dial(hub: Credentials, context: ssl.SSLContext, expect: str = "") -> Meeting:
    return meet(hub.server_context, context, peer_name, lambda connection: peer_name(connection, expect))


def accept(context: ssl.SSLContext, client: Credentials, expect: str = "") -> Meeting:
    return meet(context, client.client_context(), peer_name, lambda connection: peer_name(connection, expect))


def why(outcome: Any) -> str:
    """The sentence for a refusal by ``ssl``."""
    assert isinstance(outcome, ssl.SSLError), outcome
    return identity.reason(outcome)


# ---- who gets in


def test_both_ends_know_each_other_by_name(hub: Credentials, client: Credentials) -> None:
    assert (hub.name, client.name) == ("hub1", "garage")
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")


@pytest.mark.parametrize("name", ["localhost", "hub:7740", "127.0.0.1", "::1", "a" * 64])
def test_names(pki: Pki, name: str) -> None:
    tls = pki.instance(name, file="instance")
    hub, client = Credentials(tls, "hub"), Credentials(tls, "client")
    assert dial(hub, client.client_context()) == Meeting(name, name)


@pytest.mark.parametrize("go_hub", [False, True])
def test_certificates_of_the_go_program_are_accepted(pki: Pki, go_hub: bool) -> None:
    hub, client = Credentials(GO_TLS, "hub"), Credentials(GO_TLS, "client")
    context = client.client_context()
    hub.server_context.verify_flags |= NO_CHECK_TIME
    context.verify_flags |= NO_CHECK_TIME
    assert dial(hub, context) == Meeting("localhost", "localhost")
    # Both CAs in one file: an installation that goes over from one to the other.
    both = write(pki.directory / "both.crt", Path(GO_TLS.ca).read_bytes() + pki.ca.read_bytes())
    tls = pki.instance("ours")
    ours = TlsSettings(cert=tls.cert, key=tls.key, ca=str(both))
    go = TlsSettings(cert=GO_TLS.cert, key=GO_TLS.key, ca=str(both))
    hub, client = Credentials(go if go_hub else ours, "hub"), Credentials(ours if go_hub else go, "client")
    context = client.client_context()
    hub.server_context.verify_flags |= NO_CHECK_TIME
    context.verify_flags |= NO_CHECK_TIME
    assert dial(hub, context) == (Meeting("ours", "localhost") if go_hub else Meeting("localhost", "ours"))


def test_ours_and_those_of_go_pass_the_strict_verification(hub: Credentials, client: Credentials) -> None:
    """Which Python 3.13 switches on by default. For Go's it is what OpenSSL says today."""
    for ends in ((hub, client), (Credentials(GO_TLS, "hub"), Credentials(GO_TLS, "client"))):
        server, context = ends[0].server_context, ends[1].client_context()
        for strict in (server, context):
            strict.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
        assert dial(ends[0], context) == Meeting(ends[1].name, ends[0].name)


def test_a_ca_that_openssl_makes_is_accepted_though_the_strict_verification_refuses_it(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    identifier = x509.SubjectKeyIdentifier(b"ca")
    certificate, key = self_signed(cn("Example CA"), x509.BasicConstraints(ca=True, path_length=None), identifier)
    write(pki.ca, certificate)
    write(pki.ca_key, key)
    hub, client = Credentials(pki.instance("hub1"), "hub"), Credentials(pki.instance("garage"), "client")
    context = client.client_context()
    assert dial(hub, context) == Meeting("garage", "hub1")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert "key usage" in why(dial(hub, context).client)


def test_an_intermediate_ca_is_trusted_without_its_root(tmp_path: Path) -> None:
    root, pki = Pki(tmp_path / "root"), Pki(tmp_path / "own")
    authority = x509.BasicConstraints(ca=True, path_length=0)
    tls = root.odd("intermediate", cn("own CA"), authority, x509.SubjectKeyIdentifier(b"own"))
    write(pki.ca, Path(tls.cert).read_bytes())
    write(pki.ca_key, Path(tls.key).read_bytes())
    hub, client = Credentials(pki.instance("hub1"), "hub"), Credentials(pki.instance("garage"), "client")
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")
    stranger = untried(client_context(), root.instance("stranger"))
    assert "not accepted" in why(dial(hub, stranger).hub)


def test_one_with_the_chain_in_its_file_is_accepted_by_those_who_trust_the_root(tmp_path: Path) -> None:
    root, own = Pki(tmp_path / "root"), Pki(tmp_path / "own")
    authority = x509.BasicConstraints(ca=True, path_length=0)
    tls = root.odd("intermediate", cn("own CA"), authority, x509.SubjectKeyIdentifier(b"own"))
    write(own.ca, Path(tls.cert).read_bytes())
    write(own.ca_key, Path(tls.key).read_bytes())
    leaf = own.instance("garage")
    chain = Path(leaf.cert).read_bytes() + own.ca.read_bytes()
    client = Credentials(root.files("chained", chain, Path(leaf.key).read_bytes()), "client")
    hub = Credentials(root.instance("hub1"), "hub")
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")


# ---- who does not


def test_wrong_ca(hub: Credentials, client: Credentials, tmp_path: Path) -> None:
    stranger = Pki(tmp_path / "other")
    tls = stranger.instance("garage")
    # Knows our CA, has a certificate of its own: the name is right, the signature is not.
    context = untried(client_context(), TlsSettings(cert=tls.cert, key=tls.key, ca=str(tmp_path / "ca.crt")))
    met = dial(hub, context)
    assert "the certificate of the other end is not accepted" in why(met.hub)
    assert why(met.client) == "the other end does not know the CA of our certificate"
    met = accept(untried(server_context(), stranger.instance("hub1")), client)
    assert "not accepted" in why(met.client)
    assert why(met.hub) == "the other end does not know the CA of our certificate"


def test_expired(hub: Credentials, client: Credentials, pki: Pki) -> None:
    tls = pki.instance("old", days=1, now=datetime.now(UTC) - timedelta(days=2))
    met = dial(hub, Credentials(tls, "client").client_context())
    assert why(met.hub) == "the certificate of the other end is not accepted: certificate has expired"
    assert why(met.client) == "our certificate has expired, says the other end"
    assert "has expired" in why(accept(Credentials(tls, "hub").server_context, client).client)


def test_not_yet_valid(hub: Credentials, pki: Pki) -> None:
    """One whose maker's clock is half an hour ahead is, as it is valid from an hour before."""
    near = pki.instance("near", now=datetime.now(UTC) + timedelta(minutes=30))
    assert dial(hub, Credentials(near, "client").client_context()).hub == "near"
    far = pki.instance("far", now=datetime.now(UTC) + timedelta(hours=2))
    assert "not yet valid" in why(dial(hub, Credentials(far, "client").client_context()).hub)


@pytest.mark.parametrize("key_usage", [False, True])
def test_a_ca_as_leaf(hub: Credentials, client: Credentials, pki: Pki, key_usage: bool) -> None:
    """OpenSSL takes one whose key usages allow it. Its owner could make any name."""
    usages = "digital_signature key_cert_sign crl_sign content_commitment key_encipherment data_encipherment"
    every = dict.fromkeys((*usages.split(), "key_agreement", "encipher_only", "decipher_only"), False)
    usage = x509.KeyUsage(**every | {"digital_signature": True, "key_cert_sign": True})
    authority = x509.BasicConstraints(ca=True, path_length=None)
    tls = pki.odd("ca-leaf", cn("garage"), authority, _BOTH, *([usage] if key_usage else []))
    met = dial(hub, untried(client_context(), tls))
    assert isinstance(met.hub, PeerRefused)
    assert "of a CA ('garage')" in str(met.hub)
    assert isinstance(accept(untried(server_context(), tls), client).client, PeerRefused)
    for role in ("hub", "client"):
        with pytest.raises(CertificateError, match=r"ca-leaf\.crt: no peer would accept it: .* of a CA"):
            Credentials(tls, role)  # type: ignore[arg-type]


def test_extended_key_usage(hub: Credentials, client: Credentials, pki: Pki) -> None:
    signer = pki.odd("signer", cn("signer"), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]))
    met = dial(hub, untried(client_context(), signer))
    assert "purpose" in why(met.hub)
    assert "key usage of our certificate" in why(met.client)
    assert "purpose" in why(accept(untried(server_context(), signer), client).client)
    # A certificate for one role is none for the other.
    hub_only, client_only = pki.instance("h", role="hub"), pki.instance("c", role="client")
    assert dial(hub, Credentials(client_only, "client").client_context()) == Meeting("c", "hub1")
    assert accept(Credentials(hub_only, "hub").server_context, client) == Meeting("garage", "h")
    assert "purpose" in why(dial(hub, untried(client_context(), hub_only)).hub)
    assert "purpose" in why(accept(untried(server_context(), client_only), client).client)


def test_an_extended_key_usage_that_is_missing_restricts_nothing(hub: Credentials, pki: Pki) -> None:
    tls = pki.odd("plain", cn("plain"), x509.BasicConstraints(ca=False, path_length=None))
    assert dial(hub, Credentials(tls, "client").client_context()) == Meeting("plain", "hub1")


def test_tls_1_2(hub: Credentials, client: Credentials, pki: Pki) -> None:
    tls = pki.instance("old-fashioned")
    context = untried(client_context(), tls)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    met = dial(hub, context)
    assert why(met.hub) == why(met.client) == "the other end does not speak TLS 1.3"
    context = untried(server_context(), tls)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    met = accept(context, client)
    assert why(met.client) == "the other end does not speak TLS 1.3"


def test_no_certificate(hub: Credentials, pki: Pki) -> None:
    context = client_context()
    context.load_verify_locations(pki.ca)
    met = dial(hub, context)
    assert why(met.hub) == "the other end has shown no certificate"
    assert why(met.client) == "the other end wants to see a certificate"


def test_a_hub_whose_san_is_not_the_address(hub: Credentials, client: Credentials, pki: Pki) -> None:
    """Is accepted, unless the client wants to look at that: it is the CA and the CN that count."""
    assert dial(hub, client.client_context()).client == "hub1"
    strict = client.client_context(verify_hostname=True)
    assert "not valid for '127.0.0.1'" in why(dial(hub, strict).client)
    named = Credentials(pki.instance("hub2", sans=["hub.example", "127.0.0.1"]), "hub")
    assert dial(named, strict).client == "hub2"
    assert meet(named.server_context, strict, peer_name, peer_name, "hub.example").client == "hub2"
    assert "mismatch" in why(meet(named.server_context, strict, peer_name, peer_name, "hub.other").client)


def test_another_hub_than_the_one_that_is_expected(hub: Credentials, client: Credentials) -> None:
    """Another instance of the same CA cannot pose as the hub."""
    assert dial(hub, client.client_context(), expect="hub1").client == "hub1"
    refusal = dial(hub, client.client_context(), expect="hub2").client
    assert isinstance(refusal, PeerRefused)
    assert str(refusal) == "the other end is 'hub1', and not 'hub2' as client.hubs[].expect_hub asks for"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no common names"),
        (("a", "b"), "2 common names"),
        (("",), "is empty"),
        ((" ",), "is empty"),
        (("a\nb",), "not printable: 'a\\nb'"),
        (("a\0b",), "not printable"),
        (("x" * 256,), "too long"),
    ],
)
def test_names_that_are_none(hub: Credentials, pki: Pki, names: tuple[str, ...], message: str) -> None:
    tls = pki.odd("odd", cn(*names), _BOTH)
    refusal = dial(hub, untried(client_context(), tls)).hub
    assert isinstance(refusal, PeerRefused)
    assert message in str(refusal)
    with pytest.raises(CertificateError, match="no peer would accept it"):
        Credentials(tls, "client")


def test_a_peer_that_speaks_no_tls(hub: Credentials) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError) as caught:
            hub.server_context.wrap_socket(ours, server_side=True)
    assert identity.reason(caught.value) == "the other end does not speak TLS"


def test_no_session_can_be_resumed(hub: Credentials, client: Credentials) -> None:
    """With a ticket a peer comes back without being looked at."""

    def ticket(connection: ssl.SSLSocket) -> bool:
        connection.recv(2)
        return connection.session is not None and connection.session.has_ticket

    assert meet(hub.server_context, client.client_context(), peer_name, ticket).client is False


# ---- files that cannot be used


def damage(pki: Pki, how: str) -> TlsSettings:
    tls = pki.instance("garage")
    cert, key, ca = Path(tls.cert), Path(tls.key), Path(tls.ca)
    match how:
        case "key of another":
            key.write_bytes(Path(pki.instance("other").key).read_bytes())
        case "signed by another":
            cert.write_bytes(Path(Pki(pki.directory / "other").instance("garage").cert).read_bytes())
            key.write_bytes((pki.directory / "other" / "garage.key").read_bytes())
        case "encrypted key" | "encrypted PKCS 8 key":
            form = PrivateFormat.PKCS8 if "8" in how else PrivateFormat.TraditionalOpenSSL
            secret = load_pem_private_key(key.read_bytes(), None)
            key.write_bytes(secret.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
        case "half a key":
            key.write_bytes(key.read_bytes()[:100])
        case "half a certificate":
            cert.write_bytes(cert.read_bytes()[:300])
        case "garbled certificate":
            cert.write_bytes(cert.read_bytes().replace(b"M", b"N"))
        case "empty CA":
            ca.write_bytes(b"")
        case "half a CA file":
            ca.write_bytes(ca.read_bytes() + ca.read_bytes()[:200])
        case "leaf as CA":
            ca.write_bytes(cert.read_bytes())
        case "no key file":
            key.unlink()
        case "exchanged":
            return TlsSettings(cert=tls.key, key=tls.cert, ca=tls.ca)
    return tls


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("key of another", "garage.key: is not the key of "),
        ("signed by another", "garage.crt: was not signed by the CA in "),
        ("encrypted key", "garage.key: the key is encrypted"),
        ("encrypted PKCS 8 key", "garage.key: the key is encrypted"),
        ("half a key", "garage.key: holds no private key"),
        ("half a certificate", "garage.crt: a certificate in it has no end"),
        ("garbled certificate", "garage.crt, "),
        ("empty CA", "ca.crt: holds no certificate"),
        ("half a CA file", "ca.crt: a certificate in it has no end"),
        ("leaf as CA", "ca.crt: holds a certificate that is none of a CA"),
        ("no key file", "garage.key: No such file or directory; `keyop keygen` makes certificates and keys"),
        ("exchanged", "garage.key: holds a key and no certificate"),
    ],
)
def test_files_that_cannot_be_used(pki: Pki, how: str, message: str) -> None:
    tls = damage(pki, how)
    for role in ("hub", "client"):
        with pytest.raises(CertificateError) as caught:
            Credentials(tls, role)  # type: ignore[arg-type]
        assert f"/{message}" in str(caught.value)


def test_a_certificate_of_the_other_role(pki: Pki) -> None:
    with pytest.raises(CertificateError, match=r"g\.crt: its key usages are not those of a hub; .* --role"):
        Credentials(pki.instance("g", role="client"), "hub")
    with pytest.raises(CertificateError, match=r"h\.crt: its key usages are not those of a client"):
        Credentials(pki.instance("h", role="hub"), "client")


# ---- the course of time


def test_warnings_before_the_end(pki: Pki) -> None:
    tls = pki.instance("garage", days=100)
    credentials = Credentials(tls, "client")
    now = time.time()
    assert credentials.warnings() == []
    assert credentials.warnings(now + 69.9 * 86_400) == []
    (own,) = credentials.warnings(now + 70.1 * 86_400)
    assert own.startswith(f"{tls.cert}: the certificate expires in 29 days, at 20")
    own, ca = credentials.warnings(now + 725 * 86_400)
    assert own.startswith(f"{tls.cert}: the certificate expired at 20")
    assert ca.startswith(f"{tls.ca}: the CA expires in 4 days, at 20")
    assert all("is valid from" in text for text in credentials.warnings(0))
    silent = TlsSettings(cert=tls.cert, key=tls.key, ca=tls.ca, expiry_warn_days=-1)
    assert Credentials(silent, "client").warnings(now + 1_000 * 86_400) == []


def test_expired_files_are_used_and_warned_of(tmp_path: Path) -> None:
    """The clock may be wrong, as that of a Pi that has just started."""
    tls = Pki(tmp_path).instance("garage", days=1, now=_PAST)
    (warning,) = Credentials(tls, "hub").warnings()
    assert "garage.crt: the certificate expired at 2020-01-02T00:00:00Z" in warning


def test_a_key_that_everybody_may_read_is_warned_of(pki: Pki) -> None:
    tls = pki.instance("garage")
    Path(tls.key).chmod(0o640)
    credentials = Credentials(tls, "client")
    assert credentials.warnings() == []
    Path(tls.key).chmod(0o644)
    assert credentials.warnings() == [
        f"{tls.key}: every user of this host can get at this key (mode 0644); chmod 600 {tls.key}"
    ]


# ---- files that change


def test_a_new_pair_is_shown_from_the_next_connection_on(hub: Credentials, pki: Pki) -> None:
    client = Credentials(pki.instance("garage"), "client")
    assert hub.reload() == client.reload() == ()
    seen: list[Any] = []

    def serial(connection: ssl.SSLSocket) -> str:
        certificate = connection.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])

    for _ in range(2):
        met = meet(hub.server_context, client.client_context(), serial, serial)
        seen += [met.hub, met.client]
        hub_tls, client_tls = pki.instance("hub1"), pki.instance("garage")
        assert hub.reload() == (hub_tls.cert, hub_tls.key)
        assert client.reload() == (client_tls.cert, client_tls.key)
    assert len(set(seen)) == 4, seen
    assert all(isinstance(number, str) for number in seen), seen


def test_a_ca_that_was_taken_out_is_not_trusted_any_more(hub: Credentials, pki: Pki) -> None:
    """The hub listens with the same context all the time. Both CAs have the same name."""
    server, first = hub.server_context, pki.ca.read_bytes()
    veteran = pki.instance("veteran")
    successor = Pki(pki.directory)
    both = successor.ca.read_bytes() + first
    hub_tls, novice = successor.instance("hub1"), successor.instance("novice")
    all_known = str(write(pki.directory / "both.crt", both))
    old = Credentials(TlsSettings(cert=veteran.cert, key=veteran.key, ca=all_known), "client").client_context()
    new = Credentials(novice, "client").client_context()

    write(pki.ca, both)
    assert hub.reload() == hub.paths
    assert meet(server, old, peer_name, peer_name) == Meeting("veteran", "hub1")
    assert meet(server, new, peer_name, peer_name) == Meeting("novice", "hub1")

    write(pki.ca, both.removesuffix(first))
    assert hub.reload() == (hub_tls.ca,)
    met = meet(server, old, peer_name, peer_name)
    assert "not accepted" in why(met.hub)
    assert why(met.client) == "the other end does not know the CA of our certificate"
    assert meet(server, new, peer_name, peer_name) == Meeting("novice", "hub1")


def half(path: str) -> Callable[[], Path]:
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    return lambda: write(Path(path), whole)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_is_half_written_changes_nothing(
    hub: Credentials, client: Credentials, pki: Pki, which: int
) -> None:
    pki.instance("hub1")
    finish = half(hub.paths[which])
    with pytest.raises(CertificateError, match=Path(hub.paths[which]).name):
        hub.reload()
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")
    finish()
    assert hub.reload() == hub.paths[:2]
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")


def test_the_new_certificate_without_its_key_changes_nothing(hub: Credentials, client: Credentials, pki: Pki) -> None:
    cert, key, _ = hub.paths
    old_key = Path(key).read_bytes()
    pki.instance("hub1")
    new_key = Path(key).read_bytes()
    Path(key).write_bytes(old_key)
    with pytest.raises(CertificateError, match="is not the key of"):
        hub.reload()
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")
    Path(key).write_bytes(new_key)
    assert hub.reload() == (cert, key)


def test_files_that_are_gone_change_nothing(hub: Credentials, client: Credentials) -> None:
    Path(hub.paths[0]).unlink()
    with pytest.raises(CertificateError, match=r"hub1\.crt: No such file"):
        hub.reload()
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")


def test_another_name_is_not_taken_while_it_runs(hub: Credentials, client: Credentials, pki: Pki) -> None:
    """Routes and positions speak of the old one."""
    pki.instance("hub2", file="hub1")
    with pytest.raises(CertificateError, match="is now the certificate of 'hub2'"):
        hub.reload()
    assert hub.name == "hub1"
    assert dial(hub, client.client_context()) == Meeting("garage", "hub1")


def test_asyncio_listens_with_the_same_context(hub: Credentials, client: Credentials, pki: Pki) -> None:
    async def serials(listener: asyncio.Server) -> tuple[str, str]:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client.client_context())
        connection = writer.get_extra_info("ssl_object")
        assert peer_name(connection) == "hub1"
        name = (await reader.read()).decode()
        writer.close()
        return name, connection.getpeercert()["serialNumber"]

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(peer_name(writer.get_extra_info("ssl_object")).encode())
        writer.close()

    async def run() -> list[tuple[str, str]]:
        async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=hub.server_context) as listener:
            before = await serials(listener)
            pki.instance("hub1")
            assert hub.reload()
            return [before, await serials(listener)]

    (name, old), (name_again, new) = asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    assert name == name_again == "garage"
    assert old != new


# ---- what it costs


def test_hub_and_client_do_not_import_cryptography(pki: Pki) -> None:
    tls = pki.instance("garage")
    code = (
        "import sys; from keyop.configuration.settings import TlsSettings; "
        "from keyop.federation.credentials import Credentials; "
        "print(Credentials(TlsSettings(cert=sys.argv[1], key=sys.argv[2], ca=sys.argv[3]), 'hub').name, "
        "sorted({'cryptography', 'asyncio', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tls.cert, tls.key, tls.ca],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=DEADLINE_S,
    )
    assert done.stdout == "garage []\n"


def test_keys_of_other_kinds_sign(pki: Pki) -> None:
    """A CA of one's own may be of RSA or Ed25519."""
    now = datetime.now(UTC)
    keys = (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate())
    for key, algorithm in zip(keys, (hashes.SHA256(), None), strict=True):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(cn("Example CA"))
            .issuer_name(cn("Example CA"))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, algorithm)
        )
        write(pki.ca, certificate.public_bytes(Encoding.PEM))
        write(pki.ca_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair = Authority.read(str(pki.ca), str(pki.ca_key)).issue("garage")
        assert Credentials(pki.files("garage", pair.certificate_pem, pair.key_pem), "client").name == "garage"
