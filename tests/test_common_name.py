"""The CN in a certificate file, against what `cryptography` reads, and as the origin of messages."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from child import ROOT
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from pki import GO_TLS, Pki, cn, self_signed, write

from keyop import Messenger
from keyop.config import Config
from keyop.errors import CertificateError
from keyop.federation.common_name import common_name


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def test_certificates_of_ours_and_of_the_go_program(pki: Pki) -> None:
    assert common_name(pki.instance("edge-1").cert) == "edge-1"
    assert common_name(str(pki.ca)) == "keyop-ca"
    (go,) = x509.load_pem_x509_certificate(Path(GO_TLS.cert).read_bytes()).subject.get_attributes_for_oid(
        NameOID.COMMON_NAME
    )
    assert common_name(GO_TLS.cert) == go.value


def test_other_parts_of_the_subject_and_other_text_in_the_file(pki: Pki, tmp_path: Path) -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Wärmepumpe 7"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x" * 60),
        ]
    )
    certificate, key = self_signed(subject)
    file = write(tmp_path / "all.pem", key + b"a comment\n" + certificate + pki.ca.read_bytes())
    assert common_name(str(file)) == "Wärmepumpe 7"
    write(file, file.read_bytes().replace(b"\n", b"\r\n"))
    assert common_name(str(file)) == "Wärmepumpe 7"


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_none_or_several(tmp_path: Path, names: tuple[str, ...]) -> None:
    certificate, _ = self_signed(cn(*names))
    with pytest.raises(CertificateError, match="common names; it needs one"):
        common_name(str(write(tmp_path / "odd.crt", certificate)))


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_ones_are_an_error(pki: Pki, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = pki.directory / "damaged.crt"
    good = x509.load_pem_x509_certificate(pki.ca.read_bytes()).public_bytes(Encoding.DER)
    at = data.draw(st.integers(0, len(good) - 1))
    body = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 5)) :]
    write(path, b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(body) + b"-----END CERTIFICATE-----\n")
    try:
        assert isinstance(common_name(str(path)), str)
    except CertificateError:
        pass


def test_it_is_the_origin_of_messages(pki: Pki, data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`name` counts first, then the CN, then the host name. The key need not be readable."""
    tls = pki.instance("edge-2")
    Path(tls.key).unlink()
    sections = {"storage": {"data_dir": str(data_dir)}, "tls": {"cert": tls.cert, "key": tls.key, "ca": tls.ca}}
    with Messenger(Config(**sections)) as m:
        assert m.instance_name == "edge-2"
    with Messenger(Config(name="shop", **sections)) as m:
        assert m.instance_name == "shop"
    Path(tls.cert).write_text("no certificate")
    with Messenger(Config(**sections)) as m:
        assert m.instance_name == socket.gethostname()
        assert "the origin of messages is the host name" in caplog.text
    with Messenger(str(data_dir)) as m:
        assert m.instance_name == socket.gethostname()


def test_nothing_heavy_is_loaded_for_it() -> None:
    source = "import sys, keyop.federation.common_name; print([m for m in ('ssl', 'cryptography') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=30
    )
    assert done.stdout.strip() == "[]", done.stderr
