"""A ring of three under kill -9: each message once on each host, in the order of its origin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually, kill_writer
from federation import Host, Net, net_at
from test_federation_kills import Publisher
from test_relay import both, is_quiet, start

KILLS = 10


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def kill(chance: random.Random, host: Host) -> None:
    match chance.choice(["hub", "client", "writer"]):
        case "hub":
            host.hub.kill()
            host.start_hub()
        case "client":
            host.client.kill()
            host.start_client()
        case _:
            kill_writer(host.path)


def test_a_ring_whose_processes_are_killed(net: Net) -> None:
    """Each message comes to each host over two ways, to two processes of it at the same time."""
    chance = random.Random(7)
    a, b, c = hosts = [net.host(name) for name in "abc"]
    a.is_hub("c").is_client(both(b))
    b.is_hub("a").is_client(both(c))
    c.is_hub("b").is_client(both(a))
    start(hosts, hosts)
    with ExitStack() as stack:
        publishers = [stack.enter_context(Publisher(host, "x")) for host in hosts]
        for _ in range(KILLS):
            kill(chance, chance.choice(hosts))
            marks = [len(host.lines("x")) for host in hosts]
            eventually(
                lambda marks=marks: all(
                    len(host.lines("x")) > mark + 10 for host, mark in zip(hosts, marks, strict=True)
                ),  # type: ignore[misc]
                2 * DEADLINE_S,
            )
        sent = [publisher.stop() for publisher in publishers]
    count = sum(map(len, sent))
    eventually(lambda: all(len(host.lines("x")) >= count for host in hosts) and is_quiet(hosts), 2 * DEADLINE_S)
    for host in hosts:
        place = {id: number for number, id in enumerate(host.ids("x"))}
        assert len(place) == len(host.lines("x")) == count, host.name
        for ids in sent:
            places = [place[id] for id in ids]
            assert places == sorted(places), host.name
