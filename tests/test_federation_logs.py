"""What hub and client say in their logs of what they do, and of what others do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import Net, Pair, net_at, to_hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


@pytest.fixture
def pair(net: Net) -> Pair:
    return Pair(net)


def test_a_stop_of_ones_own_is_no_reason_to_warn(pair: Pair) -> None:
    pair.start()
    assert pair.client.client.stop() == 0
    assert f"{pair.proxy.address}: left hub1" in pair.client.client.log
    assert pair.hub.hub.stop() == 0
    for process in (pair.client.client, pair.hub.hub):
        _, leaving, rest = process.log.partition("leaving")
        assert leaving
        assert " warning " not in rest


def test_the_other_side_is_told_who_left(pair: Pair) -> None:
    pair.start()
    pair.hub.hub.stop()
    pair.client.client.wait_for("warning client")
    assert f"{pair.proxy.address}: disconnected from hub1: 1001 going away" in pair.client.client.log


@pytest.mark.parametrize(("names", "said"), [((), "0 channels"), (("a",), "1 channel\n"), (("a", "b"), "2 channels")])
def test_a_number_of_channels(pair: Pair, names: tuple[str, ...], said: str) -> None:
    pair.client.is_client(to_hub(pair.proxy.address, subscribe=names))
    pair.start()
    pair.hub.hub.wait_for(f"is connected, {said}")


def test_another_name_than_expected_is_said_on_both_sides(pair: Pair) -> None:
    pair.client.is_client(to_hub(pair.proxy.address, publish=("up",), expect_hub="hub9"))
    pair.hub.start_hub()
    pair.client.start_client().wait_for("is not the hub that is wanted, and is tried again")
    assert "the other end is 'hub1', and not 'hub9' as client.hubs[].expect_hub asks for" in pair.client.client.log
    record = pair.hub.wait_for_audit("client_rejected", peer="host2")
    assert record["detail"].startswith("it left after the TLS handshake, without a word")
    assert "expect_hub ask for another name than 'hub1'?" in record["detail"]


def test_a_hub_that_does_not_let_us_in_can_be_reached(pair: Pair) -> None:
    pair.hub.is_hub("somebody-else")
    pair.hub.start_hub()
    pair.client.start_client().wait_for("does not let this host in, and is tried again")
    assert "cannot be reached" not in pair.client.client.log
