"""kill -9 of hub, client and both writers, again and again: what was acknowledged at its origin arrives, in its order.

Duplicates are allowed nowhere here, since all hosts are ours and no power is cut; they are counted all the same.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from child import DEADLINE_S, eventually, kill_writer
from federation import Host, Net, net_at, to_hub
from inbox import Inbox

from keyop.errors import KeyopError

KILLS = 14


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


@pytest.fixture
def stack(net: Net) -> Iterator[ExitStack]:
    """Left before the net."""
    with ExitStack() as stack:
        yield stack


class Publisher:
    """Publishes numbers until it is told to stop, each as soon as the one before is acknowledged."""

    def __init__(self, host: Host, channel: str) -> None:
        self.acknowledged: list[str] = []
        self._host = host
        self._channel = channel
        self._stopped = threading.Event()
        self._messenger = host.messenger
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(0.002):
                number = len(self.acknowledged)
                self.acknowledged.append(self._messenger.publish(self._channel, number, payload_type="t", timeout=60))
        except KeyopError:
            if not self._stopped.is_set():  # else the test has failed, and takes everything down
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def stop(self) -> list[str]:
        self._stopped.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.acknowledged


def handled(inbox: Inbox, count: int) -> list[Any]:
    return [inbox.next().id for _ in range(count)]


@pytest.mark.parametrize("seed", [1])
def test_kills_of_everybody(net: Net, stack: ExitStack, seed: int) -> None:
    chance = random.Random(seed)
    hub = net.host("hub1").is_hub("host2")
    client = net.host("host2").is_client(to_hub(hub.address, subscribe=("down",), publish=("up",)))
    hub.start_hub(wait=False)
    client.start_client().wait_for("connected to hub1")
    up, down = Inbox(), Inbox()
    hub.messenger.subscribe("up", "s", up, start="earliest")
    client.messenger.subscribe("down", "s", down, start="earliest")
    publishers = [stack.enter_context(Publisher(client, "up")), stack.enter_context(Publisher(hub, "down"))]

    def kill_hub() -> None:
        hub.hub.kill()
        hub.start_hub()

    def kill_client() -> None:
        client.client.kill()
        client.start_client()

    def kill_both() -> None:
        hub.hub.kill()
        client.client.kill()
        client.start_client(wait=False)
        hub.start_hub()

    victims = [kill_hub, kill_client, kill_both, lambda: kill_writer(hub.path), lambda: kill_writer(client.path)]
    for _ in range(KILLS):
        chance.choice(victims)()
        # Between two kills something has to get through, or nothing is tried but starts.
        marks = len(hub.lines("up")), len(client.lines("down"))
        eventually(
            lambda marks=marks: len(hub.lines("up")) > marks[0] and len(client.lines("down")) > marks[1],  # type: ignore[misc]
            2 * DEADLINE_S,
        )
    sent_up, sent_down = (publisher.stop() for publisher in publishers)
    for host, channel, sent, inbox in ((hub, "up", sent_up, up), (client, "down", sent_down, down)):
        eventually(lambda host=host, channel=channel, sent=sent: len(host.lines(channel)) >= len(sent), 2 * DEADLINE_S)  # type: ignore[misc]
        there = host.ids(channel)
        duplicates = Counter(there) - Counter(set(there))
        assert duplicates == Counter(), f"{sum(duplicates.values())} duplicates on {host.name}"
        assert there == sent
        assert handled(inbox, len(sent)) == sent
    assert "Traceback" not in hub.hub.log + client.client.log


def test_the_wire_is_cut_again_and_again(net: Net, stack: ExitStack) -> None:
    """In the middle of handshakes, batches and acknowledgements."""
    chance = random.Random(3)
    hub = net.host("hub1").is_hub("host2")
    proxy = net.proxy(hub)
    client = net.host("host2").is_client(to_hub(proxy.address, subscribe=("down",), publish=("up",)))
    client.configure(federation={"reconnect_base_ms": 10, "reconnect_max_ms": 50})
    hub.start_hub(wait=False)
    client.start_client().wait_for("connected to hub1")
    publishers = [stack.enter_context(Publisher(client, "up")), stack.enter_context(Publisher(hub, "down"))]
    for _ in range(40):
        passed = sum(proxy.passed)
        wanted = chance.choice([1, 500, 3_000, 20_000])
        eventually(lambda passed=passed, wanted=wanted: sum(proxy.passed) >= passed + wanted)  # type: ignore[misc]
        chance.choice([proxy.reset, proxy.reset, proxy.half_close])()
    sent_up, sent_down = (publisher.stop() for publisher in publishers)
    for host, channel, sent in ((hub, "up", sent_up), (client, "down", sent_down)):
        eventually(lambda host=host, channel=channel, sent=sent: len(host.lines(channel)) >= len(sent), 2 * DEADLINE_S)  # type: ignore[misc]
        assert host.ids(channel) == sent
    assert "Traceback" not in hub.hub.log + client.client.log
