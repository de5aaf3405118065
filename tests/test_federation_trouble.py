"""What happens to hub and client that is not their doing: a disk that is full for long, a data directory that is moved
away, another name, signals at the wrong moment."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually, freeze, writer_pid
from federation import Host, Net, Pair, Process, net_at, to_hub
from raw_peer import connect
from test_writer import fill

from keyop.errors import SharedMemoryError
from keyop.federation.hub import Hub
from keyop.federation.wire import client_hello
from keyop.ipc import layout, lease


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


@pytest.fixture
def pair(net: Net) -> Pair:
    return Pair(net)


# ---- the disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Pair]:
    """The hub's data directory is a file system of 16 MiB."""
    with net_at(tmp_path) as net:
        pair = Pair(net)
        path = pair.hub.path
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
        try:
            yield pair
            net.close()
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)


def memory_kib(process: Process) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_a_receiver_whose_disk_is_full_for_long(small: Pair) -> None:
    """The sender gives up waiting, again and again; nothing is lost, nothing comes twice, and memory is bounded."""
    small.client.configure(federation={"ack_timeout_ms": 200, "handshake_timeout_ms": 500})
    small.start()
    small.client.publish("up", 0)
    small.hub.has("up", 1)
    fill(small.hub.path)
    before_kib = memory_kib(small.hub.hub)
    count = 1
    for _ in range(4):
        numbers = range(count, count + 2_000)
        small.client.messenger.publish_batch("up", numbers, payload_type="t")
        count += len(numbers)
        connections = small.proxy.connections
        eventually(lambda connections=connections: small.proxy.connections > connections)  # type: ignore[misc]
    assert memory_kib(small.hub.hub) - before_kib < 20 * 1024
    (small.hub.path / "filler").unlink()
    in_order = small.hub.has("up", count, 3 * DEADLINE_S) == list(range(count))
    assert in_order
    small.hub.publish("down", "and back")
    assert small.client.has("down", 1, 3 * DEADLINE_S) == ["and back"]


# ---- the directory


@pytest.mark.parametrize("role", ["hub", "client"])
def test_a_data_directory_that_is_moved_away(pair: Pair, role: str) -> None:
    """Who works on it leaves and says so. In its new place everything goes on where it stopped."""
    pair.start()
    pair.client.publish("up", 0)
    pair.hub.publish("down", 0)
    pair.hub.has("up", 1)
    pair.client.has("down", 1)
    host: Host = pair.hub if role == "hub" else pair.client
    process = pair.hub.hub if role == "hub" else pair.client.client
    elsewhere = host.path.with_name("elsewhere")
    host.path.rename(elsewhere)
    eventually(lambda: process.process.poll() is not None)
    assert process.stop() == 1
    assert f"keyop {role}: {host.path}: was removed or moved away under this process" in process.log
    assert not host.path.exists()
    host.forget_messenger()
    host.path = elsewhere
    host.sections["storage"]["data_dir"] = str(elsewhere)
    restarted = host.start_hub() if role == "hub" else host.start_client()
    pair.client.publish("up", 1)
    pair.hub.publish("down", 1)
    assert pair.hub.has("up", 2) == [0, 1]
    assert pair.client.has("down", 2) == [0, 1]
    assert "Traceback" not in restarted.log


def test_a_ring_that_the_writer_has_closed(net: Net) -> None:
    """Nothing can be committed by this process any more: it leaves, and the next one can."""
    host = net.host("hub1").is_hub("host2")

    async def play() -> Exception:
        hub = Hub(host.config.to_settings())
        await hub.start()
        hub._host.attachment._words[layout.POISONED] = 1
        try:
            return await asyncio.wait_for(hub.lost(), DEADLINE_S)
        finally:
            await hub.close()

    error = asyncio.run(play())
    assert isinstance(error, SharedMemoryError)
    assert "restart this process" in str(error)


# ---- channels


def delete(host: Host, channel: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keyop", "channel", "delete", channel, "--yes", "-d", str(host.path)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_channel_that_a_peer_gets_is_deleted(pair: Pair) -> None:
    """Not under the hub that sends it. Its position goes along: the peer gets what is published once it is back."""
    pair.start()
    pair.hub.publish("down", 1, 2)
    pair.client.has("down", 2)
    refused = delete(pair.hub, "down")
    assert (refused.returncode == 0, "in use by fed-host2" in refused.stderr) == (False, True), refused.stderr
    assert pair.hub.payloads("down") == [1, 2]
    pair.hub.hub.stop()
    assert delete(pair.hub, "down").returncode == 0
    assert pair.hub.lines("down") == []
    pair.hub.publish("down", "nobody's")
    pair.hub.start_hub()
    pair.client.client.wait_for("connected to hub1", 2)
    pair.hub.publish("down", 3)
    assert pair.client.has("down", 3) == [1, 2, 3]


def test_a_channel_that_a_peer_sends_to_is_deleted(pair: Pair) -> None:
    """Under the hub. What the peer sent before does not come again, what it sends afterwards makes the channel anew."""
    pair.start()
    pair.client.publish("up", 1, 2)
    pair.hub.has("up", 2)
    assert delete(pair.hub, "up").returncode == 0
    pair.client.publish("up", 3)
    assert pair.hub.has("up", 1) == [3]
    pair.hub.hub.kill()
    pair.hub.start_hub()
    pair.client.publish("up", 4)
    assert pair.hub.has("up", 2) == [3, 4]


# ---- names


def test_a_client_that_has_another_name_now(net: Net, pair: Pair) -> None:
    """It is another peer: it gets what comes from now on. What it had sent under its old name does not come back."""
    pair.hub.is_hub("host2", "renamed")
    pair.client.is_client(to_hub(pair.proxy.address, subscribe=("both",), publish=("both",)))
    pair.start()
    pair.client.publish("both", "old")
    pair.hub.publish("both", "from the hub")
    pair.client.has("both", 2)
    pair.hub.has("both", 2)
    net.pki.instance("renamed", file="host2")
    pair.client.client.wait_for("is now the certificate of 'renamed'; 'host2' goes on as it was")
    pair.client.publish("both", "still host2")
    pair.hub.has("both", 3)
    pair.client.client.stop()
    pair.hub.publish("both", "meanwhile")
    pair.client.start_client().wait_for("connected to hub1")
    pair.hub.wait_for_audit("client_connected", peer="renamed")
    pair.client.publish("both", "new")
    pair.hub.publish("both", "for the new one")
    pair.hub.has("both", 6)
    eventually(lambda: "for the new one" in pair.client.payloads("both"))
    assert sorted(pair.client.payloads("both")) == sorted(
        ["old", "from the hub", "still host2", "new", "for the new one"]
    )
    routes = {envelope["payload"]: envelope.get("route") for envelope in pair.hub.envelopes("both")}
    assert routes["still host2"] == ["host2", "hub1"]
    assert routes["new"] == ["renamed", "hub1"]


# ---- signals


def test_sigterm_while_a_client_dials(pair: Pair) -> None:
    """The hub takes the connection and says nothing: in the TLS handshake, and behind it."""
    pair.proxy.hold()
    pair.hub.start_hub()
    client = pair.client.start_client()
    eventually(lambda: pair.proxy.connections == 1)
    began_s = time.monotonic()
    assert client.stop() == 0
    assert time.monotonic() - began_s < 5
    assert "Traceback" not in client.log


def test_sigterm_twice(pair: Pair) -> None:
    pair.hub.configure(federation={"drain_timeout_ms": 500})
    pair.start()
    writer = writer_pid(pair.hub.path)
    assert writer is not None
    freeze(writer)
    try:
        pair.client.publish("up", 1)
        eventually(lambda: pair.proxy.passed[0] > 0)
        for process in (pair.hub.hub, pair.client.client):
            process.process.send_signal(signal.SIGTERM)
            process.wait_for("leaving")
            process.process.send_signal(signal.SIGTERM)
        assert (pair.hub.hub.stop(), pair.client.client.stop()) == (0, 0)
    finally:
        os.kill(writer, signal.SIGCONT)
    pair.start()
    assert pair.hub.has("up", 1) == [1]


@pytest.mark.parametrize("role", ["hub", "client"])
def test_sigterm_during_the_start(pair: Pair, role: str) -> None:
    """At any moment of it: it leaves with code 0, or by the signal if Python itself is still starting."""
    host = pair.hub if role == "hub" else pair.client
    for delay_s in (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        process = host.start_hub(wait=False) if role == "hub" else host.start_client(wait=False)
        time.sleep(delay_s)  # the moment is what is tried, not waited for
        assert process.stop() in (0, -signal.SIGTERM), process.log
        assert "Traceback" not in process.log


@pytest.fixture
def frozen(pair: Pair) -> Iterator[Pair]:
    """Hub and client have run, and stopped; the writers of both stand still."""
    for host in (pair.hub, pair.client):
        host.configure(federation={"drain_timeout_ms": 500})
    pair.start()
    pair.client.client.stop()
    pair.hub.hub.stop()
    pids = [pid for host in (pair.hub, pair.client) if (pid := writer_pid(host.path)) is not None]
    assert len(pids) == 2
    for pid in pids:
        freeze(pid)
    try:
        yield pair
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_sigterm_during_a_start_that_waits_for_the_writer(frozen: Pair) -> None:
    """The positions of the client's hub are not open, and it leaves all the same."""
    client = frozen.client.start_client(wait=False)
    eventually(lambda: lease.is_held(frozen.client.path / "run" / "client.lock"))
    began_s = time.monotonic()
    assert client.stop() == 0
    assert time.monotonic() - began_s < 8
    client.wait_for("leaving before the start was done")


def test_sigterm_while_peers_wait_for_their_positions(frozen: Pair) -> None:
    """It leaves in the time that batches have, not in the time that the opening of positions has."""
    hub = frozen.hub.start_hub()
    tls = frozen.client.tls
    with ExitStack() as stack:
        for _ in range(3):
            wire = stack.enter_context(connect(frozen.hub.address, tls))
            wire.send(client_hello("p", ["down"], False, ()))
        began_s = time.monotonic()
        assert hub.stop() == 0
        assert time.monotonic() - began_s < 12
    assert "Traceback" not in hub.log


# ---- the wire


def test_the_clients_half_is_closed(pair: Pair) -> None:
    """It hears that the hub says no more, while what it says still arrives there."""
    pair.start()
    pair.proxy.half_close(near=True)
    pair.client.client.wait_for("connected to hub1", 2)
    pair.client.publish("up", 1)
    pair.hub.publish("down", 2)
    assert pair.hub.has("up", 1) == [1]
    assert pair.client.has("down", 1) == [2]
