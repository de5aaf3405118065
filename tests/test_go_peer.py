"""With a peer that behaves like the Go program 1.4.1 at the other end, in both roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually
from federation import Host, Net, net_at, to_hub
from go_peer import GoClient, GoHub, GoInstance, frame_of, go_envelope
from raw_peer import Gone

from keyop.messages.ids import new_id


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


class OurHub:
    """Our hub, for a Go client."""

    def __init__(self, net: Net) -> None:
        self.host = net.host("hub1").is_hub("go-client")
        self.tls = net.pki.instance("go-client")
        self.go = GoInstance("go")

    def client(self, *subscribe: str, ephemeral: bool = False) -> GoClient:
        return GoClient(self.go, self.tls, self.host.address, subscribe, ephemeral=ephemeral)


@pytest.fixture
def our_hub(net: Net) -> OurHub:
    ours = OurHub(net)
    ours.host.start_hub()
    return ours


class OurClient:
    """Our client, for a Go hub."""

    def __init__(self, net: Net) -> None:
        self.host: Host = net.host("host2")
        self.tls = net.pki.instance("go-hub")
        self.go = GoInstance("go")
        self.hub = GoHub(self.go, self.tls, ("host2",))
        self.host.is_client(to_hub(self.hub.address, subscribe=("down", "both"), publish=("up", "both")))

    def restart_hub(self) -> None:
        """It drops TCP, forgets the ids that it has seen, and keeps its positions."""
        port = int(self.hub.address.rpartition(":")[2])
        self.hub.stop()
        self.go.seen.clear()
        positions = self.hub._positions
        self.hub = GoHub(self.go, self.tls, ("host2",), port)
        self.hub._positions = positions


@pytest.fixture
def our_client(net: Net) -> Iterator[OurClient]:
    ours = OurClient(net)
    ours.host.start_client().wait_for("connected to go-hub")
    yield ours
    ours.hub.stop()


# ---- a Go client at our hub


def test_a_go_client_sends_and_gets(our_hub: OurHub) -> None:
    with our_hub.client("down") as client:
        assert client.hub_hello == '{"instance_name":"hub1","role":"hub","version":"1"}'
        client.publish("up", {"n": 1}, new_id())
        assert our_hub.host.has("up", 1) == [{"n": 1}]
        our_hub.host.publish("down", *range(300))
        assert our_hub.go.has("down", 300) == list(range(300))
        eventually(lambda: len(client.acks) == 1)


def test_one_acknowledgement_for_each_frame_with_the_id_of_its_last_record(our_hub: OurHub) -> None:
    """Case 45."""
    host, first, second, big = our_hub.host, new_id(), new_id(), new_id()
    lines = [go_envelope("go", "up", n, id).line for n, id in enumerate((first, second))]
    oversized = go_envelope("go", "up", "x" * (5 << 20), big).line
    with our_hub.client() as client:
        for frame in (
            frame_of(lines),
            frame_of(lines),  # duplicates
            frame_of([b"not JSON", b"[]"]),
            frame_of([*lines, b"not JSON"]),
            frame_of([oversized]),
            frame_of([]),
        ):
            client.wire.send(frame)
        eventually(lambda: len(client.acks) == 6)
        assert client.acks == [second, second, "", "", big, ""]
    assert host.ids("up") == [first, second]
    record = host.wait_for_audit("policy_violation", message_id=big)
    assert record["detail"] == f"reason=too_big bytes={len(oversized)}"


def test_frames_over_4_mib_in_fragments_of_4096_bytes(our_hub: OurHub) -> None:
    """Case 54."""
    ids = [new_id() for _ in range(7)]
    frame = frame_of([go_envelope("go", "up", "x" * (1 << 20), id).line for id in ids])
    with our_hub.client() as client:
        client.wire.send(frame, fragment_bytes=4096)
        eventually(lambda: client.acks == [ids[-1]])
    assert our_hub.host.ids("up") == ids


def test_a_go_client_that_stops_just_drops_tcp(our_hub: OurHub) -> None:
    with our_hub.client("down"):
        our_hub.host.publish("down", 1)
        our_hub.go.has("down", 1)
    assert "err=1006" in our_hub.host.wait_for_audit("peer_disconnected", peer="go-client")["detail"]
    our_hub.host.publish("down", 2, 3)
    with our_hub.client("down"):
        assert our_hub.go.has("down", 3) == [1, 2, 3]  # with nothing published meanwhile (case 49)


def test_what_was_not_acknowledged_comes_again(our_hub: OurHub) -> None:
    """It acknowledges nothing, and is gone."""
    with our_hub.client("down") as client:
        client.instance.receive = lambda *_: (_ for _ in ()).throw(OSError)  # type: ignore[method-assign]
        our_hub.host.publish("down", 1)
        eventually(lambda: client.ended is not None or not client.wire.protocol.state.name)
    del our_hub.go.receive
    with our_hub.client("down"):
        assert our_hub.go.has("down", 1) == [1]


def test_an_ephemeral_go_client_gets_what_comes_now(our_hub: OurHub) -> None:
    """Case 56."""
    our_hub.host.publish("down", "old")
    with our_hub.client("down", ephemeral=True) as client:
        our_hub.host.publish("down", "new")
        assert our_hub.go.has("down", 1) == ["new"]
        client.publish("up", 1, new_id())
        eventually(lambda: len(client.acks) == 1)
        assert our_hub.host.payloads("up") == [1]
    our_hub.host.publish("down", "between")
    with our_hub.client("down", ephemeral=True):
        our_hub.host.publish("down", "newer")
        assert our_hub.go.has("down", 2) == ["new", "newer"]
    assert not list((our_hub.host.path / "subscribers").rglob("fed-*"))


def test_a_name_that_comes_twice_is_delivered_once(our_hub: OurHub) -> None:
    """Case 43."""
    with our_hub.client("down", "down") as client:
        our_hub.host.publish("down", *range(5))
        our_hub.go.has("down", 5)
        our_hub.host.publish("down", "last")
        our_hub.go.has("down", 6)
        assert len(client.instance.frames) == len(client.instance.acks)
        assert "" not in client.instance.acks  # a frame of duplicates would have been acknowledged so


def test_a_go_client_that_is_not_on_the_list(net: Net, our_hub: OurHub) -> None:
    """Case 42."""
    with pytest.raises(Gone, match="4403 not in allowlist"):
        GoClient(GoInstance("other"), net.pki.instance("other"), our_hub.host.address, ("down",))


def test_our_hub_stops_and_a_go_client_that_publishes_comes_back(our_hub: OurHub) -> None:
    with our_hub.client("down") as client:
        client.publish("up", 1, new_id())
        our_hub.host.has("up", 1)
        assert our_hub.host.hub.stop() == 0  # it is told 1001, and does not close TCP
        our_hub.host.publish("down", "while it was away")
        our_hub.host.start_hub()
        client.publish("up", 2, new_id())
        assert our_hub.host.has("up", 2) == [1, 2]
        assert our_hub.go.has("down", 1) == ["while it was away"]
        assert client.connections == 2


def test_a_go_client_that_only_subscribes_stays_away(our_hub: OurHub) -> None:
    """Nothing on the wire can change that."""
    with our_hub.client("down") as client:
        our_hub.host.publish("down", 1)
        our_hub.go.has("down", 1)
        our_hub.host.hub.stop()
        our_hub.host.start_hub()
        our_hub.host.publish("down", 2)
        eventually(lambda: client.ended is not None)
        assert (client.connections, our_hub.go.payloads("down")) == (1, [1])


def test_a_go_client_whose_name_is_not_that_of_its_certificate(net: Net) -> None:
    """Case 72: list and position go by the CN; the name in the handshake and the origin decide nothing."""
    host = net.host("hub1").is_hub({"name": "localhost", "subscribe": ["down"], "publish": ["up"]})
    host.start_hub()
    with GoClient(GoInstance("go-hub"), net.pki.instance("localhost"), host.address, ("down", "up")) as client:
        client.publish("up", 1, new_id())
        host.publish("down", 2)
        assert client.instance.has("down", 1) == [2]
        host.has("up", 1)
    record = host.wait_for_audit("peer_disconnected")
    assert record["peer"] == "localhost"
    (envelope,) = host.envelopes("up")
    assert (envelope["origin"], envelope["route"]) == ("go-hub", ["localhost", "hub1"])
    assert [path.name for path in (host.path / "subscribers").rglob("*.offset")] == ["fed-localhost.offset"]
    stranger = net.pki.instance("go-hub")
    with pytest.raises(Gone, match="4403 not in allowlist"):
        GoClient(GoInstance("localhost"), stranger, host.address, ("down",))


# ---- a Go hub for our client


def test_a_go_hub_takes_and_sends(our_client: OurClient) -> None:
    our_client.host.publish("up", *range(5))
    assert our_client.go.has("up", 5) == list(range(5))
    our_client.hub.publish("down", 1, new_id())
    assert our_client.host.has("down", 1) == [1]
    hello = json.loads(our_client.hub.hellos[0])
    assert {key: hello[key] for key in ("instance_name", "role", "version", "subscribe")} == {
        "instance_name": "host2",
        "role": "client",
        "version": "1",
        "subscribe": ["down", "both"],
    }


def test_a_channel_that_was_not_asked_for(our_client: OurClient) -> None:
    """Case 62: dropped, audited and acknowledged."""
    (wire,) = our_client.hub._wires
    stranger, asked = new_id(), new_id()
    frame = frame_of([go_envelope("go", "secret", 1, stranger).line, go_envelope("go", "down", 2, asked).line])
    wire.send(frame)
    assert our_client.host.has("down", 1) == [2]
    record = our_client.host.wait_for_audit("policy_violation", channel="secret")
    assert (record["message_id"], record["direction"], record["peer"]) == (stranger, "inbound", "go-hub")
    assert our_client.host.lines("secret") == []
    our_client.hub.publish("down", 3, new_id())  # goes only if the frame before was acknowledged
    assert our_client.host.has("down", 2) == [2, 3]


def test_own_messages_come_back_and_are_dropped(our_client: OurClient) -> None:
    """A Go hub has no filter for the peer's own messages, and its copies have no route."""
    our_client.host.publish("both", *range(20))
    our_client.go.has("both", 20)
    our_client.hub.publish("both", "last", new_id())
    assert our_client.host.has("both", 21) == [*range(20), "last"]
    eventually(lambda: our_client.hub._positions["host2", "both"] == 21)
    assert our_client.host.has("both", 21)


def test_a_go_hub_that_stops_just_drops_tcp_and_has_forgotten_what_it_saw(our_client: OurClient) -> None:
    our_client.host.publish("up", 1)
    our_client.go.has("up", 1)
    our_client.host.wait_for_audit("forward", direction="outbound")  # acknowledged, or it would come again
    our_client.restart_hub()
    our_client.host.publish("up", 2)
    assert our_client.go.has("up", 2) == [1, 2]
    detail = our_client.host.wait_for_audit("peer_disconnected", peer="go-hub")["detail"]
    assert detail == "unacked_bytes=0 err=1006"


def test_our_client_stops_and_the_go_hub_does_not_close(our_client: OurClient) -> None:
    our_client.host.publish("up", 1)
    our_client.go.has("up", 1)
    assert our_client.host.client.stop() == 0
    eventually(lambda: our_client.hub.closes == [(1001, "going away")])


def test_records_of_several_mib_both_ways(our_client: OurClient) -> None:
    our_client.host.publish("up", *("x" * (3 << 20) for _ in range(3)))
    our_client.go.has("up", 3)
    for n in range(3):
        our_client.hub.instance.store(go_envelope("go", "down", "y" * (3 << 20) + str(n), new_id()))
    our_client.host.has("down", 3)


def test_what_is_too_big_for_a_go_peer_stays_and_is_audited(our_client: OurClient) -> None:
    our_client.host.publish("up", "x" * (5 << 20), "small")
    assert our_client.go.has("up", 1) == ["small"]
    record = our_client.host.wait_for_audit("policy_violation", direction="outbound", channel="up")
    assert record["detail"].startswith("reason=too_big bytes=524")


def test_a_go_hub_that_does_not_know_us_is_asked_again(net: Net) -> None:
    host = net.host("host3")
    with GoHub(GoInstance("go"), net.pki.instance("go-hub"), ("host2",)) as hub:
        host.is_client(to_hub(hub.address, subscribe=("down",)))
        host.start_client().wait_for("4403 not in allowlist")
        eventually(lambda: len(hub.hellos) >= 3)


def test_an_envelope_that_went_through_a_go_hub(net: Net, our_client: OurClient) -> None:
    """Case 71: ids and values are the same, not the bytes. Case 72: names and origin."""
    third = net.host("host3")
    third.is_client(to_hub(our_client.hub.address, subscribe=("up",)))
    our_client.hub._peers = ("host2", "host3")
    third.start_client().wait_for("connected to go-hub")
    payload = {"text": "<b> & \u2028", "number": 1.5}
    (id,) = our_client.host.publish("up", payload)
    assert third.has("up", 1) == [payload]
    (line,) = third.lines("up")
    envelope = third.envelopes("up")[0]
    assert b"\\u003cb\\u003e \\u0026 \\u2028" in line
    assert (envelope["id"], envelope["origin"], envelope["route"]) == (
        id,
        our_client.host.messenger.instance_name,
        ["go-hub", "host3"],
    )


def test_numbers_and_times_of_a_go_hub_stay_as_they_are_written(our_client: OurClient) -> None:
    """Case 71."""
    our_client.hub.publish("down", None, new_id(), text='{"a":1.50,"a":1e+21,"b":[1E3]}')
    our_client.host.has("down", 1)
    (line,) = our_client.host.lines("down")
    assert line.endswith(b'"route":["go-hub","host2"],"payload":{"a":1.50,"a":1e+21,"b":[1E3]}}')
    assert b'"ts":"2026-11-23T21:15:14.523184788+02:00"' in line


def test_both_with_the_certificate_of_the_tutorial(net: Net) -> None:
    """Case 70: messages pass both ways, none comes twice, and our side says what is lost."""
    host = net.host("ours", cn="localhost")
    with GoHub(GoInstance("go"), net.pki.instance("localhost"), ("localhost",)) as hub:
        host.is_client(to_hub(hub.address, subscribe=("both",), publish=("both",)))
        host.start_client().wait_for("the peer's certificate has this host's own name")
        host.publish("both", 1)
        hub.instance.has("both", 1)
        hub.publish("both", 2, new_id())
        assert host.has("both", 2) == [1, 2]
        host.publish("both", 3)
        assert hub.instance.has("both", 3) == [1, 2, 3]
        hub.publish("both", 4, new_id())
        assert host.has("both", 4) == [1, 2, 3, 4]
    assert host.audit("peer_connected")[0]["detail"] == "namesake"
