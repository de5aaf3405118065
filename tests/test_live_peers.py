"""The looks of `keyop.live` at hosts in the federation, and at what `keyop up` runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually
from federation import Host, Net, net_at, to_hub

from keyop.live.sampler import Sampler
from keyop.live.snapshot import PeerView
from keyop.storage.directory import DataDirectory


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


class Looks:
    """One look after the other at a host."""

    def __init__(self, host: Host) -> None:
        self._sampler = Sampler(DataDirectory(host.path))
        self.sent = self.received = 0.0
        """What the rates come to, over all looks."""

    def __call__(self) -> PeerView:
        snapshot = self._sampler.look()
        (peer,) = snapshot.peers
        self.sent += peer.sent_per_s * snapshot.elapsed_s
        self.received += peer.received_per_s * snapshot.elapsed_s
        return peer

    def roles(self) -> list[str]:
        return [row.role for row in self._sampler.look().processes]

    def close(self) -> None:
        self._sampler.close()


def test_both_ends_of_a_connection(net: Net) -> None:
    hub = net.host("hub1").is_hub("host2")
    client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
    hub.start_hub()
    client.start_client().wait_for("connected to hub1")
    here, there = Looks(client), Looks(hub)
    eventually(lambda: here().state == "connected" and there().state == "connected")
    assert (here().role, here().name, here().address) == ("client", "hub1", hub.address)
    assert (there().role, there().name) == ("hub", "host2")
    assert "client" in here.roles()
    assert "hub" in there.roles()
    client.publish("up", *range(50))
    hub.has("up", 50)
    eventually(lambda: here().sent == 50 and there().received == 50)
    assert (round(here.sent), round(there.received), here.received, there.sent) == (50, 50, 0, 0)
    assert (here().round_trip_ms or 0) > 0
    client.client.stop()
    hub.publish("down", "x" * 1000)
    eventually(lambda: there().state == "away" and there().behind_bytes > 1000)
    here.close()
    there.close()


def test_the_supervisor_is_a_row(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    config = tmp_path / "keyop.yaml"
    config.write_text(f"storage: {{data_dir: {data_dir}}}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "keyop", "up", "-c", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(data_dir.is_dir)
        sampler = Sampler(DataDirectory(data_dir))
        eventually(lambda: [row.role for row in sampler.look().processes] == ["supervisor", "writer"])
        supervisor, _writer = sampler.look().processes
        assert (supervisor.pid, supervisor.work) == (process.pid, "keyop up")
        sampler.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
