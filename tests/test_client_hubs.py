"""The entries of client.hubs: what each key does, and whose positions are kept (cases 41, 50, 60, 61, 68, 80)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from federation import Net, Pair, net_at, to_hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


@pytest.fixture
def pair(net: Net) -> Pair:
    return Pair(net)


def test_what_is_in_no_list_stays(pair: Pair) -> None:
    """Case 61."""
    pair.client.is_client(to_hub(pair.proxy.address, subscribe=(), publish=("up",)))
    pair.start()
    pair.client.publish("other", 1)
    pair.hub.publish("down", 1)
    pair.client.publish("up", 1)
    pair.hub.has("up", 1)
    assert not (pair.hub.path / "channels" / "other").exists()
    assert pair.client.lines("down") == []
    assert pair.hub.audit("client_connected")[0]["detail"].startswith("addr=127.0.0.1:")
    assert "sub=" not in pair.hub.audit("client_connected")[0]["detail"]


def test_an_empty_publish_list_sends_nothing(pair: Pair) -> None:
    """Case 61."""
    pair.client.is_client(to_hub(pair.proxy.address, subscribe=("down",)))
    pair.start()
    pair.client.publish("up", 1)
    pair.hub.publish("down", 1)
    pair.client.has("down", 1)
    assert not (pair.hub.path / "channels" / "up").exists()


def test_a_new_channel_in_the_list_begins_at_its_end(pair: Pair) -> None:
    """A channel that has history, and one that does not exist when the client first runs with it (case 50)."""
    pair.client.publish("up", "old")
    pair.client.is_client(to_hub(pair.proxy.address, publish=("up", "later")))
    pair.proxy.cut()
    pair.client.start_client()
    pair.client.publish("up", "new")
    pair.client.publish("later", 1)
    pair.hub.start_hub()
    pair.proxy.mend()
    assert pair.hub.has("up", 1) == ["new"]
    assert pair.hub.has("later", 1) == [1]


def test_a_refusal_is_tried_again_ever_more_rarely_and_fills_no_audit(pair: Pair) -> None:
    """Case 60."""
    pair.hub.is_hub("somebody-else")
    pair.hub.start_hub()
    pair.client.start_client().wait_for("4403 not in allowlist")
    eventually(lambda: pair.proxy.connections >= 4)
    assert len(pair.client.audit("peer_connected")) == 1
    assert pair.client.audit("peer_connected")[0]["detail"] == (
        "attempt=1 err=the hub closed before its handshake: 4403 not in allowlist"
    )
    rejected = pair.hub.wait_for_audit("client_rejected")
    assert (rejected["peer"], rejected["detail"]) == ("host2", "not in hub.allowed_peers")
    assert len(pair.hub.audit("client_rejected")) == 1


def test_a_hub_with_another_name_than_expected_is_not_taken(pair: Pair) -> None:
    pair.client.is_client(to_hub(pair.proxy.address, publish=("up",), expect_hub="hub9"))
    pair.hub.start_hub()
    pair.client.start_client().wait_for("'hub1', and not 'hub9'")
    pair.client.publish("up", 1)
    assert pair.hub.lines("up") == []


def test_the_name_of_the_host_where_it_is_to_be_verified(net: Net, pair: Pair) -> None:
    """Case 80: the SANs of the hub's certificate do not name the address that is dialled, and then they do."""
    pair.client.is_client(to_hub(pair.proxy.address, publish=("up",), verify_hostname=True))
    pair.hub.start_hub(wait=False)
    pair.client.start_client().wait_for("the certificate of the other end is not accepted: IP address mismatch")
    pair.client.publish("up", 1)
    assert pair.hub.lines("up") == []
    net.pki.instance("hub1", sans=["127.0.0.1"])
    assert pair.hub.has("up", 1) == [1]


def test_a_limit_of_bytes(pair: Pair) -> None:
    pair.client.is_client(to_hub(pair.proxy.address, publish=("up",), max_bytes_per_s=40_000))
    pair.start()
    began_s = time.monotonic()
    pair.client.messenger.publish_batch("up", ["x" * 1_000] * 60, payload_type="t")
    pair.hub.has("up", 60)
    assert time.monotonic() - began_s > 1.0  # 72,000 bytes


def test_two_entries_that_lead_to_one_hub(net: Net, pair: Pair) -> None:
    """Case 68: one is kept, and the other one says so and takes over when the first is gone."""
    second = net.proxy(pair.hub)
    pair.client.is_client(
        to_hub(pair.proxy.address, subscribe=("down",), publish=("up",)),
        to_hub(second.address, subscribe=("down",), publish=("up",)),
    )
    pair.hub.start_hub()
    pair.client.start_client().wait_for("which is served at")
    pair.client.publish("up", 1)
    pair.hub.has("up", 1)
    served = second if f"{second.address}: connected" in pair.client.client.log else pair.proxy
    served.cut()
    pair.client.client.wait_for("connected to hub1", 2)
    pair.client.publish("up", 2)
    pair.hub.publish("down", 3)
    assert pair.hub.has("up", 2) == [1, 2]
    assert pair.client.has("down", 1) == [3]


def test_one_hub_twice_under_one_address(pair: Pair) -> None:
    """The first entry counts, which is said."""
    address = pair.proxy.address
    pair.client.is_client(to_hub(address, publish=("up",)), to_hub(address, subscribe=("down",), publish=("up",)))
    pair.start()
    assert f"client.hubs has {address} twice; only the first entry counts" in pair.client.client.log
    pair.client.publish("up", 1)
    assert pair.hub.has("up", 1) == [1]
    assert "sub=" not in pair.hub.audit("client_connected")[0]["detail"]


@pytest.mark.parametrize("role", ["hub", "client"])
def test_two_of_a_kind_on_one_directory(pair: Pair, role: str) -> None:
    """Also where the second one comes over a link. The first one goes on."""
    pair.start()
    host = pair.hub if role == "hub" else pair.client
    first = pair.hub.hub if role == "hub" else pair.client.client
    (host.path.parent / "link").symlink_to(host.path)
    host.sections["storage"]["data_dir"] = str(host.path.parent / "link")
    second = host.start_hub(wait=False) if role == "hub" else host.start_client(wait=False)
    eventually(lambda: second.process.poll() is not None)
    assert second.stop() == 69
    assert f"a keyop {role} runs on this directory already" in second.log
    assert first.process.poll() is None
    pair.client.publish("up", 1)
    assert pair.hub.has("up", 1) == [1]


def test_positions_of_hubs_that_are_not_configured_are_removed(pair: Pair) -> None:
    """Case 41: but not what an older Go program called the position of the same hub."""
    pair.start()
    pair.client.publish("up", 1)
    pair.hub.has("up", 1)
    pair.client.client.stop()
    offsets = pair.client.path / "subscribers" / "up"
    address = pair.proxy.address
    (offsets / f"fedout-{address}.offset").write_text("0\n")
    (offsets / "fedout-gone.example_7740.offset").write_text("0\n")
    pair.client.start_client().wait_for("no such hub is configured")
    assert sorted(path.name for path in offsets.glob("fedout-*")) == sorted(
        [f"fedout-{address.replace(':', '_')}.offset", f"fedout-{address}.offset"]
    )


def test_the_position_of_an_older_go_program_is_gone_on_from(pair: Pair) -> None:
    pair.client.publish("up", 1, 2, 3)
    first = len(pair.client.lines("up")[0]) + 1
    (pair.client.path / "subscribers" / "up").mkdir(parents=True, exist_ok=True)
    (pair.client.path / "subscribers" / "up" / f"fedout-{pair.proxy.address}.offset").write_text(f"{first}\n")
    pair.start()
    assert pair.hub.has("up", 2) == [2, 3]
