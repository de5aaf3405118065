"""``keyop keygen``, as processes: what it prints, what it leaves on disk, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pki import GO, Pki, cn, self_signed, write

from keyop.configuration.settings import TlsSettings
from keyop.errors import CertificateError
from keyop.federation import new_files
from keyop.federation.credentials import Credentials

_COMMAND = [sys.executable, "-m", "keyop.cli", "keygen"]
_INSTANCE = ("instance", "--ca", "ca.crt", "--ca-key", "ca.key", "--name")


class Keygen:
    """Runs it in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*_COMMAND, *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Its last line of complaint; no file has come, gone or changed."""
        before = self.files()
        done = self(*arguments, code=code)
        assert self.files() == before
        assert done.stdout == ""
        return done.stderr.splitlines()[-1].removeprefix("keyop: ")

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}

    def tls(self, name: str) -> TlsSettings:
        cert, key, ca = (str(self.directory / file) for file in (f"{name}.crt", f"{name}.key", "ca.crt"))
        return TlsSettings(cert=cert, key=key, ca=ca)


@pytest.fixture
def keygen(tmp_path: Path) -> Keygen:
    """In an empty directory."""
    return Keygen(tmp_path)


@pytest.fixture
def with_ca(tmp_path: Path) -> Keygen:
    """In a directory with a CA."""
    Pki(tmp_path)
    return Keygen(tmp_path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# ---- what it makes


def test_a_ca_and_an_instance(keygen: Keygen) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    for arguments, name, subject in ((("ca",), "ca", "keyop-ca"), ((*_INSTANCE, "garage"), "garage", "garage")):
        lines = keygen(*arguments).stdout.splitlines()
        cert, key = keygen.directory / f"{name}.crt", keygen.directory / f"{name}.key"
        assert (mode(cert), mode(key)) == (0o600, 0o600)
        assert key.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
        secret = load_pem_private_key(key.read_bytes(), None)
        assert isinstance(secret, ec.EllipticCurvePrivateKey)
        assert secret.curve.name == "secp384r1"
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()
        assert len(lines) == 4
        assert lines[0] == f"Subject:     CN={subject}"
        assert lines[3] == f"Fingerprint: SHA-256:{digest}"
        assert lines[1].startswith("Valid from:  ")
        assert lines[2].startswith("Valid until: ")
        first, last = (datetime.fromisoformat(line[13:]) for line in lines[1:3])
        assert lines[1].endswith("Z")
        assert began - timedelta(hours=1) <= first <= datetime.now(UTC) - timedelta(hours=1)
        assert last - first == timedelta(days=730, hours=1)
    assert sorted(keygen.files()) == ["ca.crt", "ca.key", "garage.crt", "garage.key"]
    assert Credentials(keygen.tls("garage"), "hub").name == Credentials(keygen.tls("garage"), "client").name == "garage"


def test_names_days_and_places(with_ca: Keygen) -> None:
    (with_ca.directory / "keys").mkdir()
    places = ("--out-cert", "c.pem", "--out-key", "keys/k.pem", "--days", "7")
    done = with_ca(*_INSTANCE, "a/b", *places)
    assert done.stderr == "keyop: wrote c.pem and keys/k.pem\n"
    assert mode(with_ca.directory / "keys" / "k.pem") == 0o600
    (certificate,) = json.loads(with_ca("inspect", "c.pem", "--json").stdout)
    assert (certificate["subject_cn"], certificate["dns_names"]) == ("a/b", ["a/b"])
    first, last = (datetime.fromisoformat(certificate[key]) for key in ("valid_from", "valid_until"))
    assert last - first == timedelta(days=7, hours=1)


@pytest.mark.parametrize(
    ("name", "sans", "dns_names", "addresses"),
    [
        ("hub1", (), ["hub1"], []),
        ("hub:7740", (), ["hub:7740"], []),
        ("192.168.1.5", (), [], ["192.168.1.5"]),
        ("fd00::1", (), [], ["fd00::1"]),
        ("hub1", ("hub.example", "192.168.1.5", "::1", "hub1"), ["hub1", "hub.example"], ["192.168.1.5", "::1"]),
    ],
)
def test_alternative_names(
    with_ca: Keygen, name: str, sans: tuple[str, ...], dns_names: list[str], addresses: list[str]
) -> None:
    with_ca(*_INSTANCE, name, *(word for san in sans for word in ("--san", san)))
    (certificate,) = json.loads(with_ca("inspect", f"{name}.crt", "--json").stdout)
    assert certificate["subject_cn"] == name
    assert certificate["dns_names"] == dns_names
    assert certificate["ip_addresses"] == addresses
    assert certificate["is_ca"] is False


@pytest.mark.parametrize(
    ("role", "usages"),
    [("hub", ["serverAuth"]), ("client", ["clientAuth"]), ("both", ["serverAuth", "clientAuth"])],
)
def test_roles(with_ca: Keygen, role: str, usages: list[str]) -> None:
    with_ca(*_INSTANCE, "garage", "--role", role)
    (certificate,) = json.loads(with_ca("inspect", "garage.crt", "--json").stdout)
    assert certificate["ext_key_usage"] == usages


@pytest.mark.parametrize("form", ["PKCS 8", "with parameters", "with text"])
def test_keys_of_a_ca_in_other_forms(with_ca: Keygen, form: str) -> None:
    path = with_ca.directory / "ca.key"
    match form:
        case "PKCS 8":
            key = load_pem_private_key(path.read_bytes(), None)
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
        case "with parameters":  # as `openssl ecparam -genkey` writes it
            parameters = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
            path.write_bytes(parameters + path.read_bytes())
        case "with text":
            path.write_bytes("Schlüssel:\n".encode() + path.read_bytes())
            certificate = with_ca.directory / "ca.crt"
            certificate.write_bytes("Aussteller: ö\n".encode() + certificate.read_bytes())
    with_ca(*_INSTANCE, "garage")
    assert Credentials(with_ca.tls("garage"), "client").name == "garage"


# ---- what it refuses


@pytest.mark.parametrize("there", ["garage.crt", "garage.key"])
def test_an_existing_file_is_not_touched(with_ca: Keygen, there: str) -> None:
    (with_ca.directory / there).write_text("mine")
    assert with_ca.refused(*_INSTANCE, "garage") == f"{there}: is there already, nothing was made; --force replaces it"


def test_a_link_that_leads_nowhere_is_an_existing_file(keygen: Keygen) -> None:
    (keygen.directory / "ca.key").symlink_to("elsewhere")
    assert "ca.key: is there already" in keygen.refused("ca")
    assert not (keygen.directory / "elsewhere").exists()


def test_force_keeps_mode_and_link(with_ca: Keygen) -> None:
    directory = with_ca.directory
    (directory / "secret").mkdir()
    target = directory / "secret" / "garage.key"
    target.write_text("old")
    target.chmod(0o640)
    (directory / "garage.key").symlink_to(target)
    (directory / "garage.crt").write_text("old")
    (directory / "garage.crt").chmod(0o644)
    with_ca(*_INSTANCE, "garage", "--force")
    assert (directory / "garage.key").is_symlink()
    assert mode(target) == 0o640
    assert mode(directory / "garage.crt") == 0o644
    assert Credentials(with_ca.tls("garage"), "client").name == "garage"
    assert list((directory / "secret").iterdir()) == [target]
    # With mode and all it keeps what is wrong with it, and says so.
    target.chmod(0o644)
    assert "garage.key: every user of this host can get at this key" in with_ca(*_INSTANCE, "garage", "--force").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("instance",), "Missing option '--ca'"),
        (("instance", "--ca", "ca.crt"), "Missing option '--ca-key'"),
        (("instance", "--ca", "ca.crt", "--ca-key", "ca.key"), "Missing option '--name'"),
        ((*_INSTANCE, ""), "is no name for an instance"),
        ((*_INSTANCE, "two words"), "is no name for an instance"),
        ((*_INSTANCE, "line\n"), "is no name for an instance"),
        ((*_INSTANCE, "Tür"), "is no name for an instance"),
        ((*_INSTANCE, "x" * 65), "is no name for an instance"),
        ((*_INSTANCE, "keyop-ca"), "is the name of the CA"),
        ((*_INSTANCE, "a/b"), "give --out-cert and --out-key"),
        ((*_INSTANCE, "a", "--san", "hub.example:7740"), "neither a host name nor an address"),
        ((*_INSTANCE, "a", "--san", "[::1]"), "neither a host name nor an address"),
        ((*_INSTANCE, "a", "--san", ""), "neither a host name nor an address"),
        ((*_INSTANCE, "a", "--role", "server"), "'server' is not one of 'hub', 'client', 'both'"),
        ((*_INSTANCE, "a", "--days", "0"), "0 is not in the range"),
        ((*_INSTANCE, "a", "--out-key", "a.crt"), "name the same file"),
        ((*_INSTANCE, "a", "--out-key", "./ca.key", "--force"), "is a file of the CA, and would be overwritten"),
        ((*_INSTANCE, "ca", "--force"), "is a file of the CA, and would be overwritten"),
        (("ca", "--out-cert", "x", "--out-key", "./x"), "name the same file"),
    ],
)
def test_wrong_usage(with_ca: Keygen, arguments: tuple[str, ...], message: str) -> None:
    assert message in with_ca.refused(*arguments, code=2)


def spoil(directory: Path, how: str) -> None:
    pki = Pki(directory)
    match how:
        case "no certificate":
            pki.ca.unlink()
        case "exchanged":
            pki.ca.rename(directory / "x")
            pki.ca_key.rename(pki.ca)
            (directory / "x").rename(pki.ca_key)
        case "certificate as key":
            pki.ca_key.write_bytes(pki.ca.read_bytes())
        case "key of another":
            pki.ca_key.write_bytes(Pki(directory / "other").ca_key.read_bytes())
        case "no CA":
            certificate, key = pki.instance("leaf").cert, directory / "leaf.key"
            pki.ca.write_bytes(Path(certificate).read_bytes())
            pki.ca_key.write_bytes(key.read_bytes())
        case "no CA, without BasicConstraints":
            certificate, key = self_signed(cn("some"))
            write(pki.ca, certificate)
            write(pki.ca_key, key)
        case "expired":
            Pki(directory, days=10, now=datetime(2020, 1, 1, tzinfo=UTC))
        case "of tomorrow":
            Pki(directory, now=datetime.now(UTC) + timedelta(days=1))
        case "garbled certificate":
            pki.ca.write_bytes(pki.ca.read_bytes().replace(b"M", b"N"))
        case "garbled key":
            pki.ca_key.write_bytes(pki.ca_key.read_bytes().replace(b"M", b"N"))
        case "encrypted" | "encrypted PKCS 8":
            form = PrivateFormat.PKCS8 if "8" in how else PrivateFormat.TraditionalOpenSSL
            secret = load_pem_private_key(pki.ca_key.read_bytes(), None)
            pki.ca_key.write_bytes(secret.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))


def test_an_instance_before_there_is_a_ca(keygen: Keygen) -> None:
    assert "ca.crt: No such file or directory; `keyop keygen ca` makes a CA" in keygen.refused(*_INSTANCE, "hub1")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no certificate", "ca.crt: No such file or directory"),
        ("exchanged", "ca.crt: holds a key and no certificate"),
        ("certificate as key", "ca.key: holds a certificate and no key"),
        ("key of another", "ca.key: is not the key of ca.crt"),
        ("no CA", "ca.crt: is not the certificate of a CA"),
        ("no CA, without BasicConstraints", "ca.crt: is not the certificate of a CA"),
        ("expired", "ca.crt: expired at 2020-01-11T00:00:00Z; make a new CA"),
        ("of tomorrow", "ca.crt: valid from 2"),
        ("garbled certificate", "ca.crt: a certificate in it cannot be read"),
        ("garbled key", "ca.key: the key cannot be read"),
        ("encrypted", "ca.key: the key is encrypted"),
        ("encrypted PKCS 8", "ca.key: the key is encrypted"),
    ],
)
def test_a_ca_that_cannot_sign(keygen: Keygen, how: str, message: str) -> None:
    spoil(keygen.directory, how)
    assert keygen.refused(*_INSTANCE, "garage").startswith(message)


def test_a_directory_that_is_not_there(keygen: Keygen) -> None:
    """The key, which could be written, is not left alone either."""
    said = keygen.refused("ca", "--out-cert", "nowhere/ca.crt")
    assert said == "nowhere/ca.crt: cannot be written: No such file or directory"


def test_what_is_no_file_is_not_replaced(keygen: Keygen) -> None:
    assert keygen.refused("ca", "--out-key", "/dev/null", "--force") == "/dev/null: is no file that could be replaced"
    assert "is a directory" in keygen.refused("ca", "--out-key", ".", code=2)


def test_one_that_comes_into_being_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Neither of the two is left then."""
    late = tmp_path / "ca.crt"
    late.write_text("mine")
    with pytest.raises(CertificateError, match=r"ca\.crt: is there already"):
        new_files.put([(tmp_path / "ca.key", b"key"), (late, b"certificate")], force=False)
    assert list(tmp_path.iterdir()) == [late]
    assert late.read_text() == "mine"


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT, on the stick that carries the keys from host to host."""

    def link(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    new_files.put([(tmp_path / "a", b"1"), (tmp_path / "b", b"2")], force=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}
    assert mode(tmp_path / "a") == 0o600
    with pytest.raises(CertificateError, match="b: is there already"):
        new_files.put([(tmp_path / "c", b"3"), (tmp_path / "b", b"4")], force=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_without_the_package_cryptography(keygen: Keygen) -> None:
    code = "import sys; sys.modules['cryptography'] = None; from keyop.cli import main; main(['keygen', 'ca'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=keygen.directory, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("keyop: keygen needs the package cryptography")
    assert keygen.files() == {}


# ---- what it warns of


def test_warnings(keygen: Keygen) -> None:
    Pki(keygen.directory, days=10)
    (keygen.directory / "ca.key").chmod(0o644)
    said = keygen(*_INSTANCE, "garage").stderr
    assert "ca.key: every user of this host can get at this key (mode 0644)" in said
    assert "ca.crt: the CA expires before that, at 2" in said
    assert "expires before" not in keygen(*_INSTANCE, "kitchen", "--days", "9").stderr


def test_a_ca_of_the_same_day_is_no_reason_to_warn(keygen: Keygen) -> None:
    Pki(keygen.directory, now=datetime.now(UTC) - timedelta(hours=2))
    assert keygen(*_INSTANCE, "garage").stderr == "keyop: wrote garage.crt and garage.key\n"


# ---- inspect


def test_inspect(keygen: Keygen) -> None:
    write(keygen.directory / "hub.crt", (GO / "hub.crt").read_bytes())
    lines = keygen("inspect", "hub.crt").stdout.replace(" (NOT YET)", "").splitlines()
    assert lines.pop(5).startswith("Valid until:   2028-11-22T21:15:05Z (")
    assert lines == [
        "Subject CN:    localhost",
        "Subject:       CN=localhost",
        "Issuer CN:     keyop-ca",
        "DNS SANs:      localhost",
        "Valid from:    2026-11-23T21:15:05Z",
        "Is CA:         false",
        "Ext key usage: serverAuth, clientAuth",
        f"Serial:        {0xB32DFC4A81C2EC27E3DB638642E916E9}",
        "Fingerprint:   SHA-256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert((GO / "hub.crt").read_text())).hexdigest(),
    ]


@pytest.mark.parametrize(
    ("made", "days", "remaining"),
    [
        (timedelta(), 730, "(expires in 729 day(s))"),
        (timedelta(days=-1, hours=5, minutes=1), 1, "(expires in 5h0m"),
        (timedelta(days=-10, minutes=-1), 1, "(EXPIRED 9 day(s) ago)"),
        (timedelta(days=-1, hours=-2, minutes=-1), 1, "(EXPIRED 2h1m"),
    ],
)
def test_inspect_says_how_long_it_is_valid(keygen: Keygen, made: timedelta, days: int, remaining: str) -> None:
    Pki(keygen.directory).instance("garage", days=days, now=datetime.now(UTC) + made)
    (until,) = [line for line in keygen("inspect", "garage.crt").stdout.splitlines() if "Valid until:" in line]
    assert f"Z {remaining}" in until


def test_inspect_of_a_certificate_of_tomorrow(keygen: Keygen) -> None:
    Pki(keygen.directory).instance("garage", now=datetime.now(UTC) + timedelta(days=1))
    assert "Z (NOT YET)\n" in keygen("inspect", "garage.crt").stdout


def test_inspect_of_a_file_with_several(with_ca: Keygen) -> None:
    both = with_ca.directory / "both.crt"
    both.write_bytes((with_ca.directory / "ca.crt").read_bytes() + (GO / "ca.crt").read_bytes())
    one, two = with_ca("inspect", "both.crt").stdout.split("\n\n")
    assert "Is CA:         true\n" in one
    assert "Is CA:         true\n" in two
    assert "SANs" not in one + two
    assert len(json.loads(with_ca("inspect", "both.crt", "--json").stdout)) == 2


def test_inspect_shows_no_control_characters(keygen: Keygen) -> None:
    certificate, _ = self_signed(cn("a\x1b[2Jb"))
    (keygen.directory / "odd.crt").write_bytes(certificate)
    assert "Subject CN:    'a\\x1b[2Jb'\n" in keygen("inspect", "odd.crt").stdout


@pytest.mark.parametrize(
    ("file", "message"), [("ca.key", "ca.key: holds a key and no certificate"), ("none", "none: No such file")]
)
def test_inspect_of_what_is_no_certificate(with_ca: Keygen, file: str, message: str) -> None:
    assert with_ca.refused("inspect", file).startswith(message)


# ---- help


def test_help() -> None:
    for subcommand in ((), ("ca",), ("instance",), ("inspect",)):
        done = Keygen(ROOT)(*subcommand, "--help")
        assert "Examples:" in done.stdout
