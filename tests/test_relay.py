"""Hosts that pass messages on: chain, ring, diamond, two of one name (cases 68 and 70)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from child import DEADLINE_S, eventually
from federation import Host, Net, net_at, to_hub


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


def both(hub: Host) -> dict[str, object]:
    """To a hub, everything both ways."""
    return to_hub(hub.address, subscribe=("x",), publish=("x",))


def start(hubs: list[Host], clients: list[Host]) -> None:
    """All at once, and wait until each client has all of its hubs."""
    for host in hubs:
        host.start_hub(wait=False)
    for host in clients:
        host.start_client(wait=False)
    for host in clients:
        for hub in host.sections["client"]["hubs"]:
            host.client.wait_for(f"{hub['addr']}: connected to", timeout=2 * DEADLINE_S)


def is_quiet(hosts: list[Host]) -> bool:
    """Every position of every peer is at the end: nothing is under way, and nothing will come."""
    for host in hosts:
        end = sum(len(line) + 1 for line in host.lines("x"))
        offsets = host.path / "subscribers" / "x"
        if any(int(path.read_text() or 0) != end for path in offsets.glob("fed*.offset")):
            return False
    return True


def publish_everywhere(hosts: list[Host], count: int = 30) -> list[str]:
    """Some messages of each host; all ids."""
    ids = []
    for number in range(count):
        for host in hosts:
            ids += host.publish("x", [host.name, number])
    return ids


def check(hosts: list[Host], ids: list[str], count: int = 30) -> None:
    """Each message once on each host, those of one origin in their order."""
    for host in hosts:
        host.has("x", len(ids), 2 * DEADLINE_S)
    eventually(lambda: is_quiet(hosts), 2 * DEADLINE_S)
    for host in hosts:
        assert sorted(host.ids("x")) == sorted(ids), host.name
        of_origin = groupby(sorted(host.payloads("x"), key=lambda payload: payload[0]), key=lambda payload: payload[0])
        for origin, payloads in of_origin:
            assert [number for _, number in payloads] == list(range(count)), (host.name, origin)


def test_a_chain_of_three(net: Net) -> None:
    a, b, c = (net.host(name) for name in "abc")
    c.is_hub("b")
    b.is_hub("a").is_client(both(c))
    a.is_client(both(b))
    start([c, b], [b, a])
    check([a, b, c], publish_everywhere([a, b, c]))
    assert {tuple(e["route"]) for e in c.envelopes("x") if e["payload"][0] == "a"} == {("a", "b", "c")}
    assert {tuple(e["route"]) for e in a.envelopes("x") if e["payload"][0] == "c"} == {("c", "b", "a")}


def test_a_ring_of_three(net: Net) -> None:
    a, b, c = hosts = [net.host(name) for name in "abc"]
    a.is_hub("c").is_client(both(b))
    b.is_hub("a").is_client(both(c))
    c.is_hub("b").is_client(both(a))
    start(hosts, hosts)
    check(hosts, publish_everywhere(hosts))


def test_a_diamond(net: Net) -> None:
    """Two ways from one end to the other: each message comes over both, and is kept once."""
    a, b, c, d = hosts = [net.host(name) for name in "abcd"]
    b.is_hub("a", "d")
    c.is_hub("a", "d")
    a.is_client(both(b), both(c))
    d.is_client(both(b), both(c))
    start([b, c], [a, d])
    check(hosts, publish_everywhere(hosts))


def test_two_hosts_of_one_name(net: Net) -> None:
    """As in the Go program's tutorial. Both say what that costs."""
    hub, client = net.host("first", cn="localhost"), net.host("second", cn="localhost")
    hub.is_hub("localhost")
    client.is_client(both(hub))
    start([hub], [client])
    check([hub, client], publish_everywhere([hub, client]))
    for process in (hub.hub, client.client):
        assert process.log.count("the peer's certificate has this host's own name") == 1
    assert hub.wait_for_audit("client_connected")["detail"].endswith(" namesake")
    assert client.wait_for_audit("peer_connected")["detail"] == "namesake"


def test_a_backlog_is_passed_on_by_a_host_that_was_away(net: Net) -> None:
    """What a host in the middle gets, it passes on also after it was killed in between."""
    a, b, c = (net.host(name) for name in "abc")
    c.is_hub("b")
    b.is_hub("a").is_client(both(c))
    a.is_client(both(b))
    start([c, b], [b, a])
    first = a.publish("x", *(["a", number] for number in range(10)))
    c.has("x", 10)
    b.hub.kill()
    b.client.kill()
    second = a.publish("x", *(["a", number] for number in range(10, 20)))
    b.start_hub()
    b.has("x", 20)
    b.start_client()
    check([a, b, c], first + second, 20)
