"""Channels that a peer makes up: how many of them a hub keeps, over all its connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from federation import Host, Net, net_at
from raw_peer import Wire, greet

from keyop.configuration.settings import TlsSettings

MOST = 10


class Door:
    """A hub that lets a peer ask for ten channels, and its certificate."""

    def __init__(self, net: Net) -> None:
        self.host: Host = net.host("hub1").is_hub("peer").configure(federation={"max_subscribe_names": MOST})
        self.tls: TlsSettings = net.pki.instance("peer")

    def greet(self, prefix: str, count: int, *, ephemeral: bool = False) -> Wire:
        return greet(self.host.address, self.tls, *named(prefix, count), ephemeral=ephemeral)

    def granted(self, connections: int) -> tuple[str, int]:
        """What the last of its connections got: the detail in the audit log, and how many channels that names."""
        self.host.wait_for_audit("client_connected", connections)
        detail = self.host.audit("client_connected")[-1]["detail"]
        channels = detail.partition("sub=[")[2].partition("]")[0]
        return detail, len(channels.split(",")) if channels else 0

    def files(self, kind: str) -> int:
        return len(list((self.host.path / kind).iterdir()))


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with net_at(tmp_path) as net:
        yield Door(net)


def test_an_ephemeral_peer_leaves_nothing(door: Door) -> None:
    door.host.start_hub()
    for number in range(3):
        with door.greet(f"made-up-{number}-", MOST, ephemeral=True):
            assert door.granted(number + 1)[1] == MOST
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 3)
    door.host.publish("real", 1)
    assert (door.files("channels"), door.files("subscribers")) == (1, 0)


def test_an_ephemeral_peer_hears_of_a_channel_that_comes_into_being(door: Door) -> None:
    door.host.start_hub()
    with door.greet("c", 2, ephemeral=True) as wire:
        for number in range(2):
            door.host.publish("c1", number)
            frame = wire.receive()
            assert isinstance(frame, bytes)
            assert frame.endswith(b'"payload":%d}' % number)
            wire.send('{"last_id":""}')


def test_ephemeral_connections_share_the_number(door: Door) -> None:
    door.host.start_hub()
    with door.greet("a", 8, ephemeral=True), door.greet("b", 8, ephemeral=True):
        detail, count = door.granted(2)
        assert (count, detail.endswith(" left_out=6 (max_subscribe_names)")) == (2, True)
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 2)
    with door.greet("b", 8, ephemeral=True):
        assert door.granted(3)[1] == 8


def test_positions_count_as_long_as_they_are_there(door: Door) -> None:
    """Also over a restart of the hub. What it has already it gets whatever comes in addition."""
    door.host.start_hub()
    with door.greet("a", 8):
        assert door.granted(1)[1] == 8
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 1)
    with door.greet("b", 8):
        assert door.granted(2)[1] == 2
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 2)
    assert (door.files("channels"), door.files("subscribers")) == (MOST, MOST)
    door.host.hub.kill()
    door.host.start_hub()
    names = [*named("c", 2), *named("a", 8)]
    with greet(door.host.address, door.tls, *names) as wire:
        assert door.granted(3)[1] == 8
        door.host.publish("a7", 1)
        assert isinstance(wire.receive(), bytes)
    assert door.files("subscribers") == MOST


def test_channels_that_the_list_names_are_not_counted(door: Door) -> None:
    names = [*named("a", 8), *named("b", 8)]
    door.host.is_hub({"name": "peer", "subscribe": names}).start_hub()
    for number, prefix in enumerate("ab"):
        with door.greet(prefix, 8):
            assert door.granted(number + 1)[1] == 8
        eventually(lambda number=number: len(door.host.audit("peer_disconnected")) == number + 1)  # type: ignore[misc]


def test_who_does_not_get_all_stays_when_the_list_is_read_again(door: Door) -> None:
    door.host.start_hub()
    with door.greet("a", 8):
        pass
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 1)
    with door.greet("b", 8) as wire:
        assert door.granted(2)[1] == 2
        door.host.is_hub({"name": "peer", "publish": ["up"]}).write_config()
        door.host.hub.wait_for("its entry in hub.allowed_peers has changed")
        door.host.publish("b0", 1)
        assert isinstance(wire.receive(), bytes)
