"""The client: reconnecting, catching up, what it asks for and what it takes (cases 57 to 64)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually, freeze, writer_pid
from federation import Net, Proxy, net_at, to_hub
from inbox import Inbox


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


class Pair:
    """A hub, a proxy, and a client that gets ``down`` and sends ``up``."""

    def __init__(self, net: Net) -> None:
        self.hub = net.host("hub1").is_hub("host2")
        self.client = net.host("host2")
        self.proxy: Proxy = net.proxy(self.hub)
        self.client.is_client(to_hub(self.proxy.address, subscribe=("down",), publish=("up",)))

    def start(self) -> None:
        self.hub.start_hub(wait=False)
        self.client.start_client().wait_for("connected to hub1")


@pytest.fixture
def pair(net: Net) -> Pair:
    return Pair(net)


def test_messages_go_both_ways(pair: Pair) -> None:
    pair.start()
    up, down = Inbox(), Inbox()
    pair.hub.messenger.subscribe("up", "s", up, start="earliest")
    pair.client.messenger.subscribe("down", "s", down, start="earliest")
    pair.client.publish("up", *range(10))
    pair.hub.publish("down", *range(10))
    assert up.take(10) == down.take(10) == list(range(10))
    assert [envelope["route"] for envelope in pair.hub.envelopes("up")] == [["host2", "hub1"]] * 10


def test_a_hub_that_is_not_there_at_the_start_is_no_error(pair: Pair) -> None:
    """Case 57."""
    pair.client.start_client().wait_for("cannot be reached, and is tried again")
    pair.client.publish("up", 1, 2, 3)
    pair.hub.start_hub()
    assert pair.hub.has("up", 3) == [1, 2, 3]
    assert pair.client.audit("peer_connected")[0]["detail"].startswith("attempt=1 err=")


def test_a_client_that_only_subscribes_comes_back_by_itself(pair: Pair) -> None:
    """Case 58."""
    pair.client.is_client(to_hub(pair.proxy.address, subscribe=("down",)))
    pair.start()
    pair.hub.publish("down", 1)
    pair.client.has("down", 1)
    pair.hub.hub.kill()
    pair.hub.publish("down", 2)
    pair.hub.start_hub()
    assert pair.client.has("down", 2) == [1, 2]


@pytest.mark.parametrize("count", [5, 20_000])
def test_what_is_published_while_the_hub_is_away_arrives_once_and_in_order(pair: Pair, count: int) -> None:
    """Case 59: also over a restart of the client."""
    pair.start()
    pair.client.publish("up", -1)
    pair.hub.has("up", 1)
    pair.proxy.cut()
    pair.client.client.wait_for("disconnected from hub1")
    half = count // 2
    pair.client.messenger.publish_batch("up", range(half), payload_type="t")
    pair.client.client.stop()
    pair.client.messenger.publish_batch("up", range(half, count), payload_type="t")
    pair.client.start_client()
    pair.proxy.mend()
    assert pair.hub.has("up", count + 1) == list(range(-1, count))
    assert len(set(pair.hub.ids("up"))) == count + 1


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


def test_a_connection_that_is_silently_dead_is_noticed(pair: Pair) -> None:
    """Case 64: nothing passes, and nobody says so."""
    quick = {"ping_interval_ms": 300, "ping_timeout_ms": 300}
    pair.client.configure(federation=quick)
    pair.hub.configure(federation=quick)
    pair.start()
    pair.proxy.hold()
    pair.client.publish("up", 1)
    pair.client.client.wait_for("no answer to a ping within 0.3 s")
    pair.hub.hub.wait_for("no answer to a ping within 0.3 s")
    pair.proxy.flow()
    assert pair.hub.has("up", 1) == [1]


def test_a_hub_that_never_acknowledges_is_left(net: Net, pair: Pair) -> None:
    """Case 64: its writer stands still, so that it can commit nothing, and answers pings all the same."""
    pair.client.configure(federation={"ack_timeout_ms": 500})
    pair.start()
    writer = writer_pid(pair.hub.path)
    assert writer is not None
    freeze(writer)
    try:
        pair.client.publish("up", 1)
        pair.client.client.wait_for("no acknowledgement within 0.5 s")
    finally:
        os.kill(writer, signal.SIGCONT)
    assert pair.hub.has("up", 1) == [1]


def test_a_half_closed_connection_is_made_anew(pair: Pair) -> None:
    pair.start()
    pair.proxy.half_close()
    pair.client.client.wait_for("connected to hub1", 2)
    pair.client.publish("up", 1)
    assert pair.hub.has("up", 1) == [1]


def test_a_slow_link_gets_everything(pair: Pair) -> None:
    pair.proxy.delay_s = 0.05
    pair.proxy.bytes_per_s = 200_000
    pair.start()
    pair.client.messenger.publish_batch("up", ["x" * 100] * 500, payload_type="t")
    pair.hub.has("up", 500)


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


def test_the_receiving_half_fails_and_goes_on_by_itself(pair: Pair) -> None:
    """Case 63: a channel that cannot be written is not acknowledged, and comes when it can."""
    pair.start()
    channels = pair.client.path / "channels"
    (channels / "down").write_text("a file where a directory should be")
    pair.hub.publish("down", 1)
    pair.client.client.wait_for("a batch was not committed, its sender keeps it")
    (channels / "down").unlink()
    assert pair.client.has("down", 1) == [1]
