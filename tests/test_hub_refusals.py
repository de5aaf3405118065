"""Whom a hub turns away, what that costs it, and that nobody else notices (case 80, and what bad input gets)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually, freeze, writer_pid
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from federation import Host, Net, net_at, to_hub
from pki import Pki, cn
from raw_peer import Gone, TlsSocket, client_context, connect, greet, tls_to
from test_hub import line

from keyop.federation.wire import frame_of

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with net_at(tmp_path_factory.mktemp("net")) as net:
        yield net


@pytest.fixture(scope="module")
def hub(net: Net) -> Host:
    host = net.host("hub1").is_hub("peer", "host2")
    host.configure(
        federation={
            "handshake_timeout_ms": 1_500,
            "ack_timeout_ms": 2_000,
            "ping_interval_ms": 1_000,
            "ping_timeout_ms": 1_000,
        }
    )
    host.start_hub()
    return host


@pytest.fixture(scope="module")
def client(net: Net, hub: Host) -> Host:
    """One that keeps to the rules."""
    client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
    client.start_client().wait_for("connected to hub1")
    return client


def flows(hub: Host, client: Host) -> None:
    """Messages pass both ways just now."""
    up, down = len(hub.lines("up")), len(client.lines("down"))
    client.publish("up", 1)
    hub.publish("down", 1)
    hub.has("up", up + 1)
    client.has("down", down + 1)


def fate(knock: Callable[[], TlsSocket]) -> str:
    """What somebody hears whom the hub does not like: with TLS 1.3 at the handshake, or with the first read."""
    try:
        connection = knock()
        try:
            while connection.recv(DEADLINE_S):
                pass
        finally:
            connection.close()
    except ssl.SSLError as error:
        return str(error.reason)
    return "closed"


def test_certificates_that_will_not_do(net: Net, hub: Host) -> None:
    """Each is told why, and it stands in the audit log with the address it came from."""
    signing = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    bad = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": None,
        "wrong CA": Pki(net.path / "other").instance("peer"),
        "expired": net.pki.instance("peer", file="expired", days=1, now=datetime.now(UTC) - timedelta(days=10)),
        "code signing": net.pki.odd("signing", cn("peer"), signing),
        "a hub's": net.pki.instance("peer", file="hub-only", role="hub"),
    }
    told = {what: fate(lambda tls=tls: tls_to(hub.address, tls)) for what, tls in bad.items()}  # type: ignore[misc]
    assert told == {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "wrong CA": "TLSV1_ALERT_UNKNOWN_CA",
        "expired": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "code signing": "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "a hub's": "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
    for reason in (
        "the other end has shown no certificate",
        "not accepted: self-signed certificate in certificate chain|unable to get local issuer certificate",
        "not accepted: certificate has expired",
        "not accepted: unsuitable certificate purpose|unsupported certificate purpose",
    ):
        eventually(lambda reason=reason: any(part in said for part in reason.split("|") for said in rejections(hub)))  # type: ignore[misc]
    assert all(record["peer_addr"].startswith("127.0.0.1:") for record in hub.audit("client_rejected"))


def rejections(hub: Host) -> list[str]:
    return [record["detail"] for record in hub.audit("client_rejected")]


def test_names_that_will_not_do(net: Net, hub: Host) -> None:
    """Case 42: signed by our CA, and still nobody."""
    end_entity = x509.BasicConstraints(ca=False, path_length=None)
    authority = x509.BasicConstraints(ca=True, path_length=None)
    for file, subject, constraints, why in (
        ("empty", cn(), end_entity, "has no common names"),
        ("several", cn("peer", "admin"), end_entity, "has 2 common names"),
        ("authority", cn("peer"), authority, "has shown the certificate of a CA"),
    ):
        with connect(hub.address, net.pki.odd(file, subject, constraints)) as wire, pytest.raises(Gone, match="4403"):
            wire.receive()
        hub.wait_for_audit("client_rejected", detail=why)


def test_tls_1_2_and_no_tls_at_all(net: Net, hub: Host) -> None:
    old = client_context(net.pki.instance("peer", file="old"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fate(lambda: tls_to(hub.address, None, old)) == "TLSV1_ALERT_PROTOCOL_VERSION"
    hub.wait_for_audit("client_rejected", detail="does not speak TLS 1.3")
    for said in (b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", hub.port), DEADLINE_S) as plain:
            plain.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(1000):
                    pass
    hub.wait_for_audit("client_rejected", detail="does not speak TLS")


def test_http_that_is_no_websocket(net: Net, hub: Host) -> None:
    tls = net.pki.instance("peer", file="http")
    for said in (b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", b"nonsense\r\n\r\n", b"GET /" + b"x" * 100_000):
        connection = tls_to(hub.address, tls)
        connection.sendall(said)
        with contextlib.suppress(OSError):
            while connection.recv(DEADLINE_S):
                pass
        connection.close()
    record = hub.wait_for_audit("client_rejected", detail="no WebSocket is spoken there")
    assert record["peer"] == "peer"


def test_a_port_scanner_fills_no_audit(net: Net, hub: Host) -> None:
    """Who comes and goes without a word is told once, and then counted."""
    before = len(rejections(hub))
    for _ in range(50):
        socket.create_connection(("127.0.0.1", hub.port), DEADLINE_S).close()
    eventually(lambda: len(rejections(hub)) > before)
    assert len(rejections(hub)) <= before + 3


def rss_mib(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_a_thousand_connections_that_say_nothing(net: Net, hub: Host, client: Host) -> None:
    """They are turned away, who keeps to the rules notices nothing, and a newcomer gets in all the while.

    From their own address it may have to try again, as a client does: the kernel hands over late what it had no room
    for, and then the newcomer is the one that has waited longest.
    """
    tls = net.pki.instance("peer", file="newcomer")

    def comes_in() -> bool:
        with contextlib.suppress(Gone), greet(hub.address, tls):
            flows(hub, client)
            return True
        return False

    before_mib = rss_mib(hub.hub.pid)
    silent = []
    for number in range(1_000):
        silent.append(socket.create_connection(("127.0.0.1", hub.port), DEADLINE_S))
        if number % 250 == 0:
            flows(hub, client)
    eventually(comes_in)
    if Path("/proc").is_dir():
        assert rss_mib(hub.hub.pid) < before_mib + 8
    for one in silent:
        one.settimeout(DEADLINE_S)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""  # within 1.5 s all of them are gone
        one.close()
    hub.wait_for_audit("client_rejected", detail="too many handshakes")
    hub.wait_for_audit("client_rejected", detail="no handshake within 1.5 s")


def test_who_reads_a_byte_a_second_holds_up_nobody(net: Net, hub: Host, client: Host) -> None:
    """It is left when it has not acknowledged in time, and what waits for it takes no memory."""
    tls = net.pki.instance("peer", file="slow")
    before_mib = rss_mib(hub.hub.pid)
    count = len(hub.audit("peer_disconnected"))
    with greet(hub.address, tls, "big") as wire:
        wire.connection.plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hub.messenger.publish_batch("big", ["x" * 10_000] * 2_000, payload_type="t")
        deadline = time.monotonic() + DEADLINE_S
        peak_mib = 0.0
        while len(hub.audit("peer_disconnected")) == count:
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                wire.connection.plain.recv(1)
            flows(hub, client)
            peak_mib = max(peak_mib, rss_mib(hub.hub.pid))
    assert peak_mib < before_mib + 24
    record = hub.audit("peer_disconnected")[-1]
    assert "no acknowledgement within 2 s" in record["detail"] or "no answer to a ping" in record["detail"]


def test_half_a_message_and_then_nothing(net: Net, hub: Host, client: Host) -> None:
    tls = net.pki.instance("peer", file="half")
    count = len(hub.audit("peer_disconnected"))
    with greet(hub.address, tls) as wire:
        wire.send_raw(b"\x82\xfe\x7f\xff\x00\x00\x00\x00" + b"x" * 1000)  # a binary frame of 32,767 bytes
        flows(hub, client)
        eventually(lambda: len(hub.audit("peer_disconnected")) > count)
    assert "no answer to a ping within 1 s" in hub.audit("peer_disconnected")[-1]["detail"]


def test_who_never_acknowledges(net: Net, hub: Host, client: Host) -> None:
    """It reads, and answers pings."""
    tls = net.pki.instance("peer", file="never")
    hub.publish("mute", 0)
    with greet(hub.address, tls, "mute") as wire:
        hub.publish("mute", 1)
        flows(hub, client)
        assert wire.closed() == (1002, "no acknowledgement within 2 s")
    with greet(hub.address, tls, "mute") as wire:
        message = wire.receive()
        assert isinstance(message, bytes)
        assert b'"payload":1' in message


def test_who_sends_faster_than_the_disk_takes_is_not_read_from(net: Net, hub: Host, client: Host) -> None:
    """The writer stands still: what waits is bounded, and all of it arrives when the writer goes on."""
    tls = net.pki.instance("peer", file="fast")
    writer = writer_pid(hub.path)
    assert writer is not None
    before_mib = rss_mib(hub.hub.pid)
    with greet(hub.address, tls) as wire:
        count = 60
        frame_lines = [[line("flood", "x" * 1_000_000)] for _ in range(count)]
        freeze(writer)
        try:
            sender = threading.Thread(target=lambda: [wire.send(frame_of(lines)) for lines in frame_lines], daemon=True)
            sender.start()
            sender.join(1.5)
            assert sender.is_alive()  # it is stopped by not being read
            assert rss_mib(hub.hub.pid) < before_mib + 64
        finally:
            os.kill(writer, signal.SIGCONT)
        for _ in range(count):
            wire.receive()
        sender.join(DEADLINE_S)
    assert len(hub.lines("flood")) == count
    flows(hub, client)
