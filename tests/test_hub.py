"""The hub: who gets in, what a peer may ask for and send, and what bad input gets (cases 42 to 56, 67, 74, 76)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import eventually, freeze, writer_pid
from federation import Host, Net, net_at, to_hub
from raw_peer import Gone, Wire, acknowledged, batch, connect, greet
from writers import Writer

from keyop.configuration.settings import TlsSettings
from keyop.federation.wire import client_hello
from keyop.messages.ids import new_id


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with net_at(tmp_path) as net:
        yield net


class Door:
    """A hub, and a certificate for whoever comes."""

    def __init__(self, net: Net) -> None:
        self.host: Host = net.host("hub1").is_hub("peer")
        self.tls: TlsSettings = net.pki.instance("peer")

    def greet(self, *subscribe: str, **options: Any) -> Wire:
        return greet(self.host.address, self.tls, *subscribe, **options)

    def connect(self) -> Wire:
        return connect(self.host.address, self.tls)


@pytest.fixture
def door(net: Net) -> Door:
    door = Door(net)
    door.host.start_hub()
    return door


def line(channel: str = "up", payload: Any = 1, id: str | None = None, **more: Any) -> bytes:
    envelope = {
        "v": 1,
        "id": new_id() if id is None else id,
        "ts": "2026-11-24T00:00:00Z",
        "channel": channel,
        "origin": "o",
        "payload_type": "t",
        **more,
        "payload": payload,
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


# ---- who gets in


def test_nobody_gets_in_without_being_on_the_list(net: Net, door: Door) -> None:
    """Case 42: nothing is sent to it, and nothing of it is taken."""
    stranger = net.pki.instance("stranger")
    with connect(door.host.address, stranger) as wire:
        wire.send(client_hello("peer", ["down"], False, ()))
        with pytest.raises(Gone, match="4403 not in allowlist"):
            wire.receive()
    record = door.host.wait_for_audit("client_rejected", peer="stranger")
    assert (record["detail"], record["peer_addr"].startswith("127.0.0.1:")) == ("not in hub.allowed_peers", True)
    assert not (door.host.path / "channels" / "down").exists()


def test_an_empty_list_lets_nobody_in(door: Door) -> None:
    """Case 42."""
    door.host.hub.stop()
    door.host.is_hub()
    door.host.start_hub().wait_for("hub.allowed_peers is empty: nobody gets in")
    with door.connect() as wire:
        assert wire.closed() == (4403, "not in allowlist")


def test_what_a_peer_may_get_and_send(net: Net, door: Door) -> None:
    door.host.hub.stop()
    door.host.is_hub({"name": "peer", "subscribe": ["down"], "publish": ["up"]})
    door.host.start_hub()
    with door.greet("down", "secret") as wire:
        door.host.publish("secret", 1)
        door.host.publish("down", 2)
        message = wire.receive()
        assert isinstance(message, bytes)
        assert message.count(b'"payload":2') == 1
        assert b"secret" not in message
        wire.send(batch(line("secret"), line("up", 7)))
        acknowledged(wire)
    assert door.host.payloads("up") == [7]
    assert door.host.payloads("secret") == [1]
    assert door.host.wait_for_audit("policy_violation", channel="secret")["direction"] == "inbound"
    detail = door.host.audit("client_connected")[-1]["detail"]
    assert detail.endswith(" sub=[down] pub=[up]")


# ---- what it asks for


def test_names_that_would_lead_elsewhere(door: Door) -> None:
    """Case 43: no path is touched, nothing is delivered twice."""
    names = ["../../x", "/etc", "", "x.replay", ".hidden", "y" * 5_000, 5, None, "down", "down", "x.dead-letter"]
    with door.connect() as wire:
        wire.send(json.dumps({"instance_name": "p", "role": "client", "version": "1", "subscribe": names}))
        wire.receive()
        door.host.publish("down", 1)
        frame = wire.receive()
        assert isinstance(frame, bytes)
        assert frame.count(b'"payload"') == 1
    detail = door.host.wait_for_audit("client_connected")["detail"]
    assert " sub=[down,x.dead-letter] refused=8 (" in detail
    assert "'../../x'" in detail
    assert sorted(path.name for path in (door.host.path / "subscribers").iterdir()) == ["down", "x.dead-letter"]


def test_ten_thousand_names(door: Door) -> None:
    """Case 43."""
    with door.connect() as wire:
        wire.send(json.dumps({"instance_name": "p", "role": "client", "version": "1", "subscribe": ["c"] * 10_000}))
        assert wire.closed()[0] == 1002


# ---- what it sends


def test_bad_names_cost_themselves_only(door: Door) -> None:
    """Case 44: dropped, audited, acknowledged; the valid records of the frame are committed."""
    bad = ["../../x", "", ".dead-letter", "x.dead-letter", "x.replay", "y" * 5_000, ".x"]
    last = new_id()
    with door.greet() as wire:
        wire.send(batch(line("up", 1), *(line(name) for name in bad), line("up", 2, last)))
        assert acknowledged(wire) == last
    assert door.host.payloads("up") == [1, 2]
    eventually(lambda: len(door.host.audit("policy_violation")) == len(bad))
    assert all("reason=channel_name" in record["detail"] for record in door.host.audit("policy_violation"))
    assert [path.name for path in (door.host.path / "channels").iterdir()] == ["up"]


def test_bad_records_cost_themselves_only(door: Door) -> None:
    """Cases 45, 74 and 76."""
    good = [new_id() for _ in range(4)]
    records = [
        line(payload=1, id=good[0]),
        line(payload=2, v=2),
        line(payload=3, v="1"),
        line(payload=4).replace(b'"v":1,', b""),
        line(payload=5, id=""),
        line(payload=6, id=""),
        b"[]",
        b"null",
        b"\xff\xfe",
        b"",
        line(payload=7, route="no list"),
        line(payload=8, id=good[1]).replace(b'"channel"', b'"Channel"'),  # Go reads keys in any case
        line(payload=9, id=good[2]).replace(b'"origin":"o"', b'"origin":null'),
        line(payload=10, id=good[3]),
    ]
    with door.greet() as wire:
        wire.send(batch(*records))
        assert acknowledged(wire) == good[3]
    assert door.host.payloads("up") == [1, 8, 9, 10]
    eventually(lambda: [record["detail"] for record in door.host.audit("policy_violation")] == ["reason=no_id"] * 2)


def test_a_truncated_frame_closes_and_nothing_of_it_is_kept(door: Door) -> None:
    """Case 52."""
    for frame in (batch(line())[:-1], batch(line()) + b"\x00", b"\xff\xff\xff\xff" + line()):
        with door.greet() as wire:
            wire.send(frame)
            code, reason = wire.closed()
            assert (code, reason.startswith("truncated frame")) == (1002, True)
    assert door.host.lines("up") == []
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 3)
    assert "err=1002 truncated frame" in door.host.audit("peer_disconnected")[0]["detail"]


NO_HANDSHAKES: list[tuple[str | bytes, int]] = [
    (b"\x00\x00\x00\x01x", 1002),
    ("null", 1002),
    ("[]", 1002),
    ("{}", 1002),
    ("no JSON", 1002),
    ('{"role":"hub","version":"1"}', 1002),
    ('{"role":"client","version":"2"}', 1002),
    ("x" * (1 << 20), 1009),
    (b"x" * (1 << 20), 1009),
]


def test_something_else_than_a_handshake(door: Door) -> None:
    """Case 52."""
    for message, code in NO_HANDSHAKES:
        with door.connect() as wire:
            wire.send(message)
            assert wire.closed()[0] == code, message[:20]
    assert door.host.wait_for_audit("client_rejected", peer="peer", detail="handshake")["peer_addr"]


def test_text_where_none_belongs(door: Door) -> None:
    for sent in ("hello", '{"last_id":""}', "[]"):
        with door.greet() as wire:
            wire.send(sent)
            assert wire.closed()[0] == 1002, sent
    eventually(lambda: len(door.host.audit("peer_disconnected")) == 3)
    assert all("err=1002" in record["detail"] for record in door.host.audit("peer_disconnected"))


def test_an_acknowledgement_of_nothing(door: Door) -> None:
    with door.greet("down") as wire:
        door.host.publish("down", 1)
        wire.receive()
        wire.send('{"last_id":"x"}')
        wire.send('{"last_id":"x"}')
        assert wire.closed() == (1002, "an acknowledgement, and nothing is in flight")


def test_300_records_of_3_mib_are_more_than_one_message_may_be(door: Door) -> None:
    """Case 54."""
    record = line(payload="x" * (3 << 20))
    with door.greet() as wire:
        wire.send(batch(*[record] * 11), fragment_bytes=1 << 16)
        code, _ = wire.closed()
        assert code == 1009
    assert door.host.lines("up") == []


def test_repeats_are_stored_once_also_over_restarts(door: Door) -> None:
    """Case 48: a repeat that is older than any cache, and a hub that knows nothing of it any more."""
    door.host.hub.stop()
    door.host.configure(dedup={"seen_id_lru_size": 100})
    door.host.start_hub()
    lines = [line(payload=number) for number in range(400)]
    with door.greet() as wire:
        wire.send(batch(*lines))
        acknowledged(wire)
        wire.send(batch(*lines[:10]))
        acknowledged(wire)
    door.host.hub.kill()
    door.host.start_hub()
    with door.greet() as wire:
        wire.send(batch(*lines))
        acknowledged(wire)
    assert door.host.payloads("up") == list(range(400))


def test_repeats_of_a_peer_whose_clock_is_far_off(door: Door) -> None:
    """Its ids and times are of 1970 and of 2200, and then of today. They pass, in the order in which they came."""
    door.host.hub.stop()
    door.host.configure(dedup={"seen_id_lru_size": 100})
    door.host.start_hub()
    clocks_ms = [5_000, 7_258_118_400_000, 1_795_478_400_000]

    def dated(number: int) -> bytes:
        ms = f"{clocks_ms[number % 3] + number:012x}"
        ts = ["1970-01-01T00:00:05Z", "2200-01-01T00:00:00Z", "no time"][number % 3]
        return line(payload=number, id=f"{ms[:8]}-{ms[8:]}{new_id()[13:]}", ts=ts)

    lines = [dated(number) for number in range(600)]
    with door.greet() as wire:
        wire.send(batch(*lines))
        acknowledged(wire)
        wire.send(batch(*lines[:300]))
        acknowledged(wire)
    door.host.hub.kill()
    door.host.start_hub()
    with door.greet() as wire:
        wire.send(batch(*lines))
        acknowledged(wire)
    assert door.host.payloads("up") == list(range(600))


def test_one_id_from_two_connections_at_once(net: Net, door: Door) -> None:
    """Case 47."""
    door.host.hub.stop()
    door.host.is_hub("peer", "other")
    door.host.start_hub()
    lines = [line(payload=number) for number in range(2_000)]
    with door.greet() as first, greet(door.host.address, net.pki.instance("other")) as second:
        for at in range(0, 2_000, 100):
            first.send(batch(*lines[at : at + 100]))
            second.send(batch(*lines[at : at + 100]))
            acknowledged(first)
            acknowledged(second)
    assert door.host.payloads("up") == list(range(2_000))


def test_a_commit_that_fails_is_not_acknowledged(door: Door) -> None:
    """Case 46."""
    frame = batch(line(payload=1))
    (door.host.path / "channels" / "up").write_text("a file where a directory should be")
    with door.greet() as wire:
        wire.send(frame)
        code, reason = wire.closed()
        assert (code, reason.startswith("batch 1 not committed")) == (1011, True)
    (door.host.path / "channels" / "up").unlink()
    with door.greet() as wire:
        wire.send(frame)
        acknowledged(wire)
    assert door.host.payloads("up") == [1]


def test_one_id_from_two_connections_whose_commits_both_fail(net: Net, door: Door) -> None:
    """Case 47: neither is remembered as seen, and of the repeats one is stored."""
    door.host.hub.stop()
    door.host.is_hub("peer", "other")
    door.host.start_hub()
    lines = [line(payload=number) for number in range(500)]
    other = net.pki.instance("other")
    (door.host.path / "channels" / "up").write_text("a file where a directory should be")
    with door.greet() as first, greet(door.host.address, other) as second:
        for wire in (first, second):
            wire.send(batch(*lines))
        assert first.closed()[0] == second.closed()[0] == 1011
    (door.host.path / "channels" / "up").unlink()
    with door.greet() as first, greet(door.host.address, other) as second:
        for wire in (first, second):
            wire.send(batch(*lines))
        assert acknowledged(first) == acknowledged(second) == json.loads(lines[-1])["id"]
    assert door.host.payloads("up") == list(range(500))


def test_one_id_from_two_connections_while_the_writer_dies(net: Net, door: Door) -> None:
    """Case 47: it dies when both stand in the ring and one of them is written, and not applied."""
    door.host.hub.stop()
    door.host.is_hub("peer", "other")
    door.host.close()
    with Writer(door.host.path, on_demand=True, env={"KEYOP_CRASH_AT": "frame.written:4"}) as writer:
        door.host.start_hub()
        lines = [line(payload=number) for number in range(2_000)]
        with door.greet() as first, greet(door.host.address, net.pki.instance("other")) as second:
            for at in range(0, 2_000, 100):
                first.send(batch(*lines[at : at + 100]))
                second.send(batch(*lines[at : at + 100]))
                acknowledged(first)
                acknowledged(second)
        assert writer.end() == -signal.SIGKILL
    assert door.host.payloads("up") == list(range(2_000))


def test_a_message_that_was_here_is_a_loop(door: Door) -> None:
    with door.greet() as wire:
        wire.send(batch(line(payload=1, route=["a", "hub1", "b"]), line(payload=2, route=["a"])))
        acknowledged(wire)
    assert door.host.payloads("up") == [2]
    assert door.host.envelopes("up")[0]["route"] == ["a", "peer", "hub1"]
    assert door.host.wait_for_audit("loop_dropped")["peer"] == "peer"


# ---- positions


def test_a_new_peer_gets_what_comes_after(door: Door) -> None:
    """Case 50."""
    door.host.publish("down", "old")
    with door.greet("down", "later") as wire:
        door.host.publish("down", "new")
        frame = wire.receive()
        assert isinstance(frame, bytes)
        assert b'"new"' in frame
        assert b'"old"' not in frame
        wire.send('{"last_id":""}')
    door.host.publish("later", 1)
    with door.greet("later") as wire:
        assert b'"channel":"later"' in wire.receive()  # type: ignore[operator]


def test_a_peer_that_comes_back_gets_its_backlog_although_nobody_publishes(door: Door) -> None:
    """Case 49."""
    with door.greet("down"):
        pass
    door.host.wait_for_audit("peer_disconnected")
    door.host.publish("down", 1, 2, 3)
    with door.greet("down") as wire:
        frame = wire.receive()
        assert isinstance(frame, bytes)
        assert frame.count(b'"payload"') == 3


def test_a_second_connection_takes_the_place_of_the_first(door: Door) -> None:
    """Case 51: and goes on exactly where that one stopped."""
    with door.greet("down") as first:
        door.host.publish("down", 1)
        first.receive()
        first.send('{"last_id":""}')
        door.host.publish("down", 2)
        first.receive()  # and does not acknowledge it
        with door.greet("down") as second:
            assert first.closed() == (4409, "replaced")
            frame = second.receive()
            assert isinstance(frame, bytes)
            assert frame.count(b'"payload"') == 1
            assert b'"payload":2' in frame
            second.send('{"last_id":""}')
            door.host.publish("down", 3)
            second.receive()
            second.send('{"last_id":""}')
            eventually(
                lambda: door.host.offset("down", "fed-peer") == sum(len(one) + 1 for one in door.host.lines("down"))
            )


def test_ephemeral_connections_of_one_certificate_live_side_by_side(door: Door) -> None:
    """And beside the durable one. Case 56: they leave no file, get nothing old, and an answer when all is synced."""
    door.host.publish("down", "old")
    with (
        door.greet("down") as durable,
        door.greet("down", ephemeral=True) as one,
        door.greet("down", ephemeral=True) as two,
    ):
        door.host.publish("down", "new")
        for wire in (durable, one, two):
            frame = wire.receive()
            assert isinstance(frame, bytes)
            assert frame.count(b'"payload"') == 1
        one.send(batch(line(payload=5)))
        acknowledged(one)
        assert door.host.payloads("up") == [5]
    assert [path.name for path in (door.host.path / "subscribers" / "down").iterdir()] == ["fed-peer.offset"]


def test_own_ephemeral_messages_do_not_come_back(door: Door) -> None:
    """Case 67."""
    with door.greet("both", ephemeral=True) as wire:
        wire.send(batch(line("both", 1)))
        acknowledged(wire)
        door.host.publish("both", 2)
        frame = wire.receive()
        assert isinstance(frame, bytes)
        assert frame.count(b'"payload"') == 1
        assert b'"payload":2' in frame


def test_one_certificate_does_not_take_all_connections(door: Door) -> None:
    door.host.hub.stop()
    door.host.configure(federation={"max_peer_connections": 2})
    door.host.start_hub()
    with door.greet(ephemeral=True), door.greet(ephemeral=True), door.connect() as third:
        third.send(client_hello("p", (), True, ()))
        assert third.closed() == (1013, "too many connections of one certificate")
    assert door.host.wait_for_audit("client_rejected", peer="peer")


def test_what_was_removed_before_it_was_sent_is_said(door: Door) -> None:
    """Case 39."""
    with door.greet("down"):
        pass
    door.host.wait_for_audit("peer_disconnected")
    door.host.publish("down", *range(20))
    path = door.host.path / "channels" / "down"
    (segment,) = path.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    door.host.hub.stop()
    door.host.close()
    cut = len(b"".join(lines[:15]))
    (path / f"{cut:020d}.jsonl").write_bytes(b"".join(lines[15:]))
    segment.unlink()
    door.host.start_hub()
    with door.greet("down") as wire:
        frame = wire.receive()
        assert isinstance(frame, bytes)
        assert frame.count(b'"payload"') == 5
    record = door.host.wait_for_audit("replay_gap", peer="peer", channel="down")
    assert record["detail"] == f"from=0 to={cut} bytes={cut}"


# ---- the end


def test_a_stop_finishes_what_is_under_way(door: Door) -> None:
    with door.greet("down") as wire:
        door.host.publish("down", 1)
        wire.receive()
        door.host.hub.process.terminate()
        wire.send('{"last_id":""}')
        assert wire.closed() == (1001, "going away")
    assert door.host.hub.stop() == 0
    assert door.host.offset("down", "fed-peer") == len(door.host.lines("down")[0]) + 1


def test_a_stop_while_the_writer_stands_still(door: Door) -> None:
    """It does not wait for ever, and no position is lost: the writer takes it from the port when it goes on."""
    door.host.hub.stop()
    door.host.configure(federation={"drain_timeout_ms": 500})
    door.host.start_hub()
    with door.greet("down") as wire:
        door.host.publish("down", 1)
        wire.receive()
        writer = writer_pid(door.host.path)
        assert writer is not None
        freeze(writer)
        try:
            wire.send('{"last_id":""}')
            wire.send(batch(line()))
            door.host.hub.process.terminate()
            assert door.host.hub.stop() == 0
        finally:
            os.kill(writer, signal.SIGCONT)
    eventually(lambda: door.host.offset("down", "fed-peer") == len(door.host.lines("down")[0]) + 1)


def test_a_stop_while_peers_connect(net: Net, door: Door) -> None:
    """Case 55."""
    wires = [door.connect() for _ in range(5)]
    door.host.hub.process.terminate()
    for _ in range(3):
        try:
            wires.append(door.connect())
        except (OSError, Gone, EOFError):
            pass
    assert door.host.hub.stop() == 0
    assert "Traceback" not in door.host.hub.log
    for wire in wires:
        wire.drop()


def test_a_client_of_ours_is_served_beside_all_that(net: Net, door: Door) -> None:
    """While others do what they should not, its messages flow on."""
    client = net.host("host2").is_client(to_hub(door.host.address, subscribe=("down",), publish=("up",)))
    door.host.hub.stop()
    door.host.is_hub("peer", "host2").configure(federation={"handshake_timeout_ms": 2_000})
    door.host.start_hub()
    client.start_client().wait_for("connected to hub1")
    mute, deaf = door.connect(), door.greet("down")  # says nothing; reads nothing
    for number in range(50):
        door.host.publish("down", {"number": number, "text": "x" * 100_000})
        client.publish("up", number)
    assert door.host.has("up", 50) == list(range(50))
    client.has("down", 50)
    mute.drop()
    deaf.drop()
