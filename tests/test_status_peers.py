"""``keyop status`` of hosts in the federation: how hub and client stand with their peers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, ROOT, eventually
from federation import Host, Net, net_at, to_hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def status(host: Host, *arguments: str) -> str:
    command = [sys.executable, "-m", "keyop.cli", "status", "-d", str(host.path), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout


def peer(host: Host, role: str) -> dict[str, Any]:
    """How the one peer of its hub or client stands."""
    attached = json.loads(status(host, "--json"))["attached"]
    (found,) = [one for process in attached if process["role"] == role for one in process["peers"]]
    assert isinstance(found, dict)
    return found


def test_connected_and_away(net: Net) -> None:
    hub = net.host("hub1").is_hub("host2")
    client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
    hub.start_hub()
    client.start_client().wait_for("connected to hub1")
    client.publish("up", 1, 2, 3)
    hub.has("up", 3)
    eventually(lambda: peer(client, "client")["sent"] == 3 and peer(hub, "hub")["received"] == 3)
    assert peer(client, "client")["behind_bytes"] == 0
    line = r"host2 \(127\.0\.0\.1:\d+\)  connected for \d+ s; sent 0, behind 0 bytes; received 3, last \d+ s ago; .*"
    assert re.search(rf"^ +pid {hub.hub.pid}  hub, .*\n +{line}$", status(hub), re.MULTILINE)
    line = r"hub1 \(\S+\)  connected for .*; sent 3, behind 0 bytes, last .*, round trip [\d.]+ ms"
    assert re.search(rf"^ +pid {client.client.pid}  client, .*\n +{line}$", status(client), re.MULTILINE)
    client.client.stop()
    hub.publish("down", 4)
    eventually(lambda: peer(hub, "hub")["state"] == "away" and peer(hub, "hub")["behind_bytes"] > 0)
    assert re.search(r"host2 \(\S+\)  away for \d+ s; sent 0, behind [1-9]\d* bytes; received 3, ", status(hub))


def test_refused(net: Net) -> None:
    hub = net.host("hub1").is_hub("somebody")
    client = net.host("host2").is_client(to_hub(hub.address, publish=("up",)))
    hub.start_hub()
    client.start_client().wait_for("4403 not in allowlist")
    eventually(lambda: peer(client, "client")["state"] == "refused")
    assert f"? ({hub.address})  refused for " in status(client)
    # It is asked again twice a second or more; since when it refuses is not the last time.
    eventually(lambda: peer(client, "client")["since_s"] > 1.5)
    # Nobody has come yet.
    assert peer(hub, "hub")["state"] == "away"
