"""The client: reconnecting, catching up, and what is noticed of a link (cases 57 to 59, 63, 64)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import freeze, writer_pid
from federation import Net, Pair, net_at, to_hub
from inbox import Inbox


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


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


def test_the_receiving_half_fails_and_goes_on_by_itself(pair: Pair) -> None:
    """Case 63: a channel that cannot be written is not acknowledged, and comes when it can."""
    pair.start()
    channels = pair.client.path / "channels"
    (channels / "down").write_text("a file where a directory should be")
    pair.hub.publish("down", 1)
    pair.client.client.wait_for("a batch was not committed, its sender keeps it")
    (channels / "down").unlink()
    assert pair.client.has("down", 1) == [1]
