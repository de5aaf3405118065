"""Files that change while hub and client run, and what status says of peers."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import ROOT, eventually
from federation import Host, Net, net_at, to_hub
from pki import Pki, write
from raw_peer import Gone, Wire, connect, greet, tls_to
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from keyop.federation import absent
from keyop.federation.authority import Authority
from keyop.federation.hub import Hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


class Pair:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.hub: Host = net.host("hub1").is_hub("host2", "other")
        self.client: Host = net.host("host2").is_client(to_hub(self.hub.address, subscribe=("down",), publish=("up",)))
        self.hub.start_hub(wait=False)
        self.client.start_client().wait_for("connected to hub1")

    def flows(self) -> None:
        count = len(self.hub.lines("up"))
        self.client.publish("up", count)
        self.hub.has("up", count + 1)


@pytest.fixture
def pair(net: Net) -> Pair:
    return Pair(net)


# ---- the list of peers


def test_a_peer_that_is_taken_off_the_list_is_disconnected(pair: Pair) -> None:
    pair.hub.is_hub("other").write_config()
    pair.client.client.wait_for("4403 not in allowlist")
    pair.hub.hub.wait_for("host2 was taken off hub.allowed_peers")
    pair.client.publish("up", "meanwhile")
    pair.hub.is_hub("other", "host2").write_config()
    pair.client.client.wait_for("connected to hub1", 2)
    assert pair.hub.has("up", 1) == ["meanwhile"]


def test_a_new_peer_is_let_in(pair: Pair) -> None:
    tls = pair.net.pki.instance("third")
    with connect(pair.hub.address, tls) as wire:
        assert wire.closed()[0] == 4403
    pair.hub.is_hub("host2", "third").write_config()
    pair.hub.hub.wait_for("read again")
    eventually(lambda: _gets_in(pair.hub, tls))
    assert "connected to hub1" not in pair.client.client.log.partition("connected to hub1")[2]
    pair.flows()


def _gets_in(hub: Host, tls: Any) -> bool:
    try:
        with greet(hub.address, tls):
            return True
    except Gone:
        return False


def test_lists_of_channels(pair: Pair) -> None:
    """Other channels to get: it has to come again. Other channels to publish to: at once."""
    pair.hub.is_hub({"name": "host2", "publish": ["elsewhere"]}, "other").write_config()
    pair.hub.hub.wait_for("its entry in hub.allowed_peers has changed")
    pair.client.publish("up", 1)
    pair.hub.wait_for_audit("policy_violation", channel="up")
    assert pair.client.client.log.count("connected to hub1") == 1
    pair.hub.is_hub({"name": "host2", "subscribe": ["elsewhere"]}, "other").write_config()
    pair.client.client.wait_for("its channels have changed, come again")
    pair.client.client.wait_for("connected to hub1", 2)
    pair.hub.publish("down", "secret")
    pair.flows()
    assert pair.client.lines("down") == []


def test_a_broken_file_changes_nothing_and_other_keys_wait(pair: Pair) -> None:
    good = pair.hub.config_path.read_text()
    pair.hub.config_path.write_text("hub: {allowed_peers: [}")
    pair.hub.hub.wait_for("what was read before stays in force")
    pair.flows()
    pair.hub.config_path.write_text(good)
    pair.hub.configure(federation={"window_batches": 3}).write_config()
    pair.hub.hub.wait_for("these take effect when this process is started again: federation.window_batches")
    pair.client.is_client().write_config()
    pair.client.client.wait_for("these take effect when this process is started again: client.hubs")
    pair.flows()


def test_an_emptied_file_changes_nothing(pair: Pair) -> None:
    good = pair.hub.config_path.read_text()
    for host, process in ((pair.hub, pair.hub.hub), (pair.client, pair.client.client)):
        host.config_path.write_text("")
        process.wait_for("what was read before stays in force")
    pair.flows()
    assert pair.client.client.log.count("connected to hub1") == 1
    pair.hub.config_path.unlink()
    pair.hub.config_path.write_text(good.replace("name: other", "name: third"))
    pair.hub.hub.wait_for("other was taken off hub.allowed_peers")
    pair.flows()


def test_an_emptied_list_lets_nobody_stay(pair: Pair) -> None:
    pair.hub.is_hub().write_config()
    pair.hub.hub.wait_for("hub.allowed_peers is empty: nobody gets in")
    pair.client.client.wait_for("4403 not in allowlist", 2)


def test_a_list_that_could_not_be_brought_into_force_is_tried_again(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = net.host("hub1").is_hub("host2")
    third = net.pki.instance("third")
    failing = [OSError(errno.EIO, "the disk")]
    look = absent.all_positions

    def all_positions(*arguments: Any) -> dict[str, absent.Positions]:
        if failing:
            raise failing.pop()
        return look(*arguments)

    async def play() -> None:
        hub = Hub(host.config.to_settings())
        failing.clear()
        await hub.start()
        failing.append(OSError(errno.EIO, "the disk"))
        host.is_hub("host2", "third").write_config()
        await asyncio.to_thread(eventually, lambda: _gets_in(host, third))
        await hub.close()

    monkeypatch.setattr("keyop.federation.absent.all_positions", all_positions)
    monkeypatch.setattr("keyop.federation.reload._AGAIN_S", 0.5)
    asyncio.run(play())
    assert "what was read before stays in force: [Errno 5] the disk" in caplog.text


# ---- certificates


def renew(net: Net, host: Host, **options: Any) -> None:
    net.pki.instance(host.name, **options)


def test_a_new_certificate_is_used_by_the_next_connection(pair: Pair) -> None:
    before = Path(pair.hub.tls.cert).read_bytes()
    renew(pair.net, pair.hub)
    assert Path(pair.hub.tls.cert).read_bytes() != before
    pair.hub.hub.wait_for("read again: ")
    pair.flows()
    assert pair.client.client.log.count("connected to hub1") == 1
    with connect(pair.hub.address, pair.net.pki.instance("other")) as wire:
        shown = wire.connection.getpeercert(True)
    assert shown == ssl.PEM_cert_to_DER_cert(Path(pair.hub.tls.cert).read_text())


def test_half_a_pair_is_not_used(pair: Pair) -> None:
    pair_pem = Authority.read(str(pair.net.pki.ca), str(pair.net.pki.ca_key)).issue("hub1")
    Path(pair.hub.tls.cert).write_bytes(pair_pem.certificate_pem)
    pair.hub.hub.wait_for("what was read before stays in force")
    with greet(pair.hub.address, pair.net.pki.instance("other")):
        pair.flows()
    Path(pair.hub.tls.key).write_bytes(pair_pem.key_pem)
    pair.hub.hub.wait_for("read again: ")


def test_another_ca_makes_everybody_come_again(pair: Pair, tmp_path: Path) -> None:
    """Those whom the new one does not know stay out."""
    other = pair.net.pki.instance("other")
    new = Pki(tmp_path / "new")
    issued = Authority.read(str(new.ca), str(new.ca_key)).issue("hub1")
    old_ca = pair.net.pki.ca.read_bytes()
    with greet(pair.hub.address, other) as wire:
        # First both CAs, so that the hub can change its own certificate.
        write(pair.net.pki.ca, new.ca.read_bytes() + old_ca)
        assert wire.closed() == (1001, "another CA, come again")
    pair.client.client.wait_for("connected to hub1", 2)
    Path(pair.hub.tls.cert).write_bytes(issued.certificate_pem)
    Path(pair.hub.tls.key).write_bytes(issued.key_pem)
    pair.hub.hub.wait_for("read again: ", 2)
    write(pair.net.pki.ca, new.ca.read_bytes())
    pair.client.client.wait_for("does not know the CA of our certificate")
    pair.hub.wait_for_audit("client_rejected", detail="not accepted")


def test_who_was_at_the_door_when_the_ca_changed_comes_again(pair: Pair, tmp_path: Path) -> None:
    """Its certificate was good under the old one, and nobody has looked at it under the new one."""
    wire = Wire(
        tls_to(pair.hub.address, pair.net.pki.instance("other")),
        ClientProtocol(parse_uri(f"wss://{pair.hub.address}/")),
    )
    with wire:
        write(pair.net.pki.ca, pair.net.pki.ca.read_bytes() + Pki(tmp_path / "new").ca.read_bytes())
        pair.hub.hub.wait_for("read again: ")
        wire.protocol.send_request(wire.protocol.connect())
        wire._flush()
        while wire.opening is None:
            wire.step()
        assert wire.closed() == (1001, "another CA, come again")


# ---- status


def run_status(host: Host, *options: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "keyop", "status", "-d", str(host.path), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=30,
    ).stdout


def status(host: Host) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run_status(host, "--json"))
    return report


def peers(host: Host, role: str) -> dict[str, dict[str, Any]]:
    (process,) = [process for process in status(host)["attached"] if process["role"] == role]
    return {peer["name"]: peer for peer in process["peers"]}


def test_how_things_stand(pair: Pair) -> None:
    for _ in range(3):
        pair.flows()
    pair.hub.publish("down", 1)
    pair.client.has("down", 1)

    def settled() -> bool:
        here, there = peers(pair.hub, "hub"), peers(pair.client, "client")
        if "hub1" not in there:
            return False  # its name is shown half a second after it is known
        return here["host2"]["received"] == 3 and there["hub1"]["sent"] == 3 and here["host2"]["sent"] == 1

    eventually(settled)
    here, there = peers(pair.hub, "hub")["host2"], peers(pair.client, "client")["hub1"]
    assert (here["state"], here["behind_bytes"], here["waiting_bytes"]) == ("connected", 0, 0)
    assert here["address"].startswith("127.0.0.1:")
    assert there["address"] == pair.hub.address
    assert there["round_trip_ms"] > 0
    assert 0 <= there["sent_ago_s"] < 60
    assert there["sent_per_min"] > 0
    assert peers(pair.hub, "hub")["other"]["state"] == "away"


def test_how_far_a_peer_that_is_away_is_behind(pair: Pair) -> None:
    pair.hub.publish("down", 1)
    pair.client.has("down", 1)
    pair.client.client.stop()
    before = sum(len(line) + 1 for line in pair.hub.lines("down"))
    pair.hub.publish("down", *range(100))
    behind = sum(len(line) + 1 for line in pair.hub.lines("down")) - before
    eventually(lambda: peers(pair.hub, "hub")["host2"]["behind_bytes"] == behind)
    assert peers(pair.hub, "hub")["host2"]["state"] == "away"
    # A hub that is started again knows it by the offset files.
    pair.hub.hub.kill()
    pair.hub.start_hub()
    eventually(lambda: peers(pair.hub, "hub")["host2"]["behind_bytes"] == behind)
    # And a client of a hub that is away.
    pair.hub.hub.stop()
    pair.client.start_client()
    pair.client.publish("up", 1)
    eventually(lambda: "" in peers(pair.client, "client"))
    eventually(lambda: peers(pair.client, "client")[""]["behind_bytes"] > 0)


def test_status_for_people(pair: Pair) -> None:
    pair.flows()
    eventually(lambda: "host2 (127.0.0.1:" in run_status(pair.hub))
    text = run_status(pair.hub)
    assert "  hub, 2 peers" in text
    (line,) = [line for line in text.splitlines() if "host2 (127.0.0.1:" in line]
    assert "connected for" in line
    assert "behind 0 bytes" in line
    assert "  other  not seen yet; sent 0" in text
