"""``keyop doctor`` where hub and client are configured: certificates, the hub's address, hubs that are asked."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually
from federation import Host, Net, free_port, net_at, to_hub
from pki import Pki
from test_doctor import Report, doctor

from keyop.federation.authority import Authority
from keyop.inspection import presence
from keyop.storage.directory import DataDirectory


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def report_of(host: Host) -> Report:
    return doctor("-c", host.write_config())


# ---- certificates


def test_certificates_that_will_do(net: Net) -> None:
    report = report_of(net.host("hub1").is_hub("edge").is_client(to_hub("127.0.0.1:1")))
    said = [(one["level"], one["values"]["role"]) for one in report.findings if one["check"] == "certificates"]
    assert said == [("ok", "hub"), ("ok", "client")]


def test_certificates_near_their_end_and_beyond(net: Net, tmp_path: Path) -> None:
    soon = net.host("soon", days=10).is_hub("edge")
    found = report_of(soon).of("certificates", "warning")
    assert "expires in 9 days" in found["text"]
    assert "keyop keygen instance" in found["remedy"]
    then = datetime.now(UTC) - timedelta(days=60)
    old = Pki(tmp_path / "old-pki", days=30, now=then)
    pair = Authority.read(str(old.ca), str(old.ca_key), then).issue("past", days=20, now=then)
    tls = old.files("past", pair.certificate_pem, pair.key_pem)
    host = net.host("past").is_hub("edge")
    host.sections["tls"] = {"cert": tls.cert, "key": tls.key, "ca": tls.ca}
    report = report_of(host)
    assert report.levels("certificates") == ["problem", "problem"]  # it, and its CA
    assert all("expired at" in one["text"] for one in report.findings if one["check"] == "certificates")
    assert report.code == 1


def test_files_that_do_not_fit(net: Net) -> None:
    host = net.host("hub1").is_hub("edge")
    other = net.pki.instance("other")
    host.sections["tls"]["key"] = other.key
    found = report_of(host).of("certificates", "problem")
    assert f"{other.key}: is not the key of" in found["text"]
    host.sections["tls"]["key"] = str(net.path / "none.key")
    assert "none.key: No such file" in report_of(host).of("certificates", "problem")["text"]
    host.sections["tls"] = {"cert": host.tls.cert, "key": host.tls.key, "ca": host.tls.ca}
    Path(host.tls.key).chmod(0o644)
    assert "every user of this host" in report_of(host).of("certificates", "warning")["text"]


def test_a_ca_that_only_a_lenient_program_takes(net: Net, tmp_path: Path) -> None:
    """keyop takes it; Python 3.13 with its defaults does not."""
    key, ca = tmp_path / "ca2.key", tmp_path / "ca2.crt"
    config = tmp_path / "req.cnf"
    config.write_text("[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=CA:true\n")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
    files = ["-keyout", str(key), "-out", str(ca), "-subj", "/CN=lenient", "-config", str(config)]
    if subprocess.run([*make, *files], capture_output=True, check=False, timeout=DEADLINE_S).returncode:
        pytest.skip("needs the command openssl")
    pair = Authority.read(str(ca), str(key)).issue("hub1")
    tls = net.pki.files("lenient", pair.certificate_pem, pair.key_pem)
    host = net.host("hub1").is_hub("edge")
    host.sections["tls"] = {"cert": tls.cert, "key": tls.key, "ca": str(ca)}
    report = report_of(host)
    assert "RFC 5280" in report.of("certificates", "note")["text"]
    assert report.of("certificates", "ok")
    host.start_hub()


# ---- the hub's own address


def test_where_the_hub_listens(net: Net) -> None:
    hub = net.host("hub1").is_hub("edge")
    assert report_of(hub).of("listening", "ok")["text"] == f"a hub can listen at {hub.address}"
    with socket.create_server(("127.0.0.1", hub.port)):
        taken = report_of(hub).of("listening", "problem")
        assert "Address already in use" in taken["text"]
        assert f"sport = :{hub.port}" in taken["remedy"]
    hub.start_hub()
    assert f"pid {hub.hub.pid}" in report_of(hub).of("listening", "ok")["text"]
    hub.is_hub(listen_addr="203.0.113.7:7740")
    other = net.host("hub2").is_hub(listen_addr="203.0.113.7:7740")
    report = report_of(other)
    assert "cannot listen at 203.0.113.7:7740" in report.of("listening", "problem")["text"]
    assert "nobody gets in" in report.of("listening", "warning")["text"]


# ---- other hosts' hubs


def test_a_hub_that_lets_in_and_one_that_does_not(net: Net) -> None:
    hub = net.host("hub1").is_hub("edge")
    hub.start_hub()
    edge = net.host("edge").is_client(to_hub(hub.address, expect_hub="hub1"))
    assert "'hub1' lets 'edge' in" in report_of(edge).of("hubs", "ok")["text"]
    stranger = net.host("stranger").is_client(to_hub(hub.address))
    refused = report_of(stranger).of("hubs", "problem")
    assert "does not let 'stranger' in" in refused["text"]
    assert "hub.allowed_peers" in refused["remedy"]
    mistaken = net.host("mistaken").is_client(to_hub(hub.address, expect_hub="hub2"))
    assert "hub1" in report_of(mistaken).of("hubs", "problem")["text"]


def test_a_connected_client_is_left_alone(net: Net) -> None:
    hub = net.host("hub1").is_hub("edge")
    hub.start_hub()
    edge = net.host("edge").is_client(to_hub(hub.address))
    edge.start_client().wait_for("connected to hub1")

    def connected() -> bool:
        attached = presence.attached(DataDirectory(edge.path))
        return any(peer.state == "connected" for process in attached for peer in process.peers)

    eventually(connected)
    assert "the client is connected to 'hub1'" in report_of(edge).of("hubs", "ok")["text"]
    assert len(hub.audit("client_connected")) == 1


def test_asking_does_not_replace_the_client_of_that_certificate(net: Net, tmp_path: Path) -> None:
    """Another data directory with the same certificate asks, while the client is connected."""
    hub = net.host("hub1").is_hub("edge")
    hub.start_hub()
    edge = net.host("edge").is_client(to_hub(hub.address, publish=("c",)))
    edge.start_client().wait_for("connected to hub1")
    twin = net.host("twin", cn="edge").is_client(to_hub(hub.address))
    assert "lets 'edge' in" in report_of(twin).of("hubs", "ok")["text"]
    edge.publish("c", 1)
    hub.has("c", 1)
    assert "replaced" not in edge.client.log
    assert "disconnected" not in edge.client.log


def test_hubs_that_cannot_be_reached(net: Net) -> None:
    hub = net.host("hub1").is_hub("edge")
    nobody = f"127.0.0.1:{free_port()}"
    edge = net.host("edge").is_client(to_hub(nobody), to_hub("hub.invalid:7740"))
    found = [one for one in report_of(edge).findings if one["check"] == "hubs"]
    assert [one["level"] for one in found] == ["problem", "problem"]
    assert "nothing listens there" in found[0]["remedy"]
    assert "name resolution" in found[1]["remedy"]
    hub.start_hub()
    foreign = Pki(net.path / "foreign").instance("edge")
    edge.is_client(to_hub(hub.address))
    edge.sections["tls"] = {"cert": foreign.cert, "key": foreign.key, "ca": foreign.ca}
    assert "another CA than tls.ca" in report_of(edge).of("hubs", "problem")["remedy"]


def test_what_listens_there_is_no_hub(net: Net) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        edge = net.host("edge").is_client(to_hub(f"127.0.0.1:{listening.getsockname()[1]}"))
        found = report_of(edge).of("hubs", "problem")
    assert "does not speak TLS" in found["text"]
    assert "is it a keyop hub" in found["remedy"]


def test_no_hubs_at_all(net: Net) -> None:
    assert "client.hubs is empty" in report_of(net.host("edge").is_client()).of("hubs", "warning")["text"]
