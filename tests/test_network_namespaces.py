"""Two hosts that are two hosts for the kernel: network namespaces, a cable between them, and somebody who pulls it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import Net, net_at, to_hub

SUFFIX = f"{os.getpid() % 100_000}"
HUB_ADDRESS, CLIENT_ADDRESS = "10.231.7.1", "10.231.7.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


class Cable:
    """Two namespaces, each with an end of it."""

    def __init__(self) -> None:
        self.spaces = (f"kha{SUFFIX}", f"khb{SUFFIX}")
        self.ends = (f"kva{SUFFIX}", f"kvb{SUFFIX}")

    def lay(self) -> None:
        for space in self.spaces:
            ip("netns", "add", space)
        ip("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1])
        for space, end, address in zip(self.spaces, self.ends, (HUB_ADDRESS, CLIENT_ADDRESS), strict=True):
            ip("link", "set", end, "netns", space)
            ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", space, "link", "set", end, "up")

    def pull(self) -> None:
        """No packet passes, and nobody is told."""
        ip("-n", self.spaces[0], "link", "set", self.ends[0], "down")

    def plug(self) -> None:
        ip("-n", self.spaces[0], "link", "set", self.ends[0], "up")

    def remove(self) -> None:
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=20)

    def inside(self, side: int) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.spaces[side])


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    cable = Cable()
    try:
        cable.lay()
    except subprocess.CalledProcessError as error:
        cable.remove()
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
    try:
        yield cable
    finally:
        cable.remove()


@pytest.fixture
def net(cable: Cable, tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def test_the_cable_is_pulled_and_plugged_in_again(net: Net, cable: Cable) -> None:
    quick = {"ping_interval_ms": 300, "ping_timeout_ms": 300}
    hub = net.host("hub1").is_hub("host2", listen_addr=":7740").configure(federation=quick)
    client = net.host("host2").configure(federation=quick)
    client.is_client(to_hub(f"{HUB_ADDRESS}:7740", subscribe=("down",), publish=("up",)))
    hub.start_hub(wait=False, prefix=cable.inside(0))
    client.start_client(prefix=cable.inside(1)).wait_for("connected to hub1")
    client.publish("up", 1)
    hub.publish("down", 1)
    hub.has("up", 1)
    client.has("down", 1)
    cable.pull()
    client.publish("up", 2)
    hub.publish("down", 2)
    client.client.wait_for("disconnected from hub1")
    hub.hub.wait_for("is disconnected")
    client.publish("up", 3)
    hub.publish("down", 3)
    cable.plug()
    assert hub.has("up", 3) == [1, 2, 3]
    assert client.has("down", 3) == [1, 2, 3]
    assert hub.wait_for_audit("client_connected", count=2, peer="host2")["peer_addr"].startswith(CLIENT_ADDRESS)
