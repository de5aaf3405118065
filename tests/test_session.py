"""The session: the Go program's recorded exchanges, order of acknowledgements, limits, and whatever else may come."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keyop.federation.limits import Limits
from keyop.federation.record import Fault
from keyop.federation.session import (
    Acknowledged,
    Batch,
    Close,
    Closed,
    Event,
    Frame,
    HelloReceived,
    Received,
    Session,
    State,
)
from keyop.federation.wire import CloseCode, ack_text, client_hello, frame_of, hub_hello

FIXTURES = Path(__file__).parent / "fixtures" / "wire-v1"
NOW = 1_000.0
LINE = b'{"v":1,"id":"%b","ts":"2026-11-23T21:00:00Z","channel":"c","origin":"o","payload_type":"t","payload":{"i":1}}'
GO_CLIENT = client_hello("go", ["c"], False, ())
GO_HUB = hub_hello("go", ())


def line(message_id: str) -> bytes:
    return LINE % message_id.encode()


def open_hub(hello: str = GO_CLIENT, **limits: Any) -> Session:
    """A hub whose handshake is done."""
    session = Session.hub("hub", now_s=NOW, limits=Limits(**limits))
    session.receive(hello, NOW)
    session.accept(NOW)
    assert session.state is State.OPEN, session.events()
    take(session)
    return session


def open_client(hello: str = GO_HUB, **limits: Any) -> Session:
    """A client whose handshake is done."""
    session = Session.client("client", ["c"], now_s=NOW, limits=Limits(**limits))
    session.receive(hello, NOW)
    assert session.state is State.OPEN, session.events()
    take(session)
    return session


def pipelined_hub(**limits: Any) -> Session:
    return open_hub(client_hello("ours", ["c"], False, ["pipelined"]), **limits)


either_role = pytest.mark.parametrize("opened", [open_hub, open_client], ids=["hub", "client"])
Opened = Callable[..., Session]


def take(session: Session) -> tuple[list[Frame], list[Event]]:
    return session.frames_to_send(), session.events()


def received(session: Session) -> list[Batch]:
    return [event.batch for event in session.events() if isinstance(event, Received)]


def close_of(session: Session) -> Close:
    """The close that ended the session, which is its last frame, and was said in its last event."""
    frames, events = take(session)
    close, closed = frames[-1], events[-1]
    assert isinstance(close, Close)
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason, closed.by_peer) == (close.code, close.reason, False)
    assert session.state is State.CLOSED
    assert not session.can_send
    assert not session.can_receive
    assert session.deadline_s is None
    return close


# The recorded exchanges.


def recorded(name: str) -> list[dict[str, Any]]:
    frames = json.loads((FIXTURES / f"{name}.json").read_text())
    return [frame for frame in frames if frame["frame"] in ("text", "binary")]


def message_of(frame: dict[str, Any]) -> str | bytes:
    if frame["frame"] == "binary":
        return base64.b64decode(frame["base64"])
    text = frame["data"]
    assert isinstance(text, str)
    return text


def lines_of(frame: dict[str, Any]) -> list[bytes]:
    return [record.encode() for record in frame["records"]]


def replay(name: str, side: str, session: Session, exact: bool) -> None:
    """Play the part of `side`: what the other one sent goes in, what `side` sent has to come out.

    `exact` where the Go program played that part. The other one was a Python program that wrote JSON with blanks, so
    there texts have to be equal as values; frames of records are compared as bytes in any case.
    """
    out: list[Frame] = []
    for frame in recorded(name):
        if frame["from"] != side:
            session.receive(message_of(frame), NOW)
            for event in session.events():
                if isinstance(event, HelloReceived) and side == "hub":
                    session.accept(NOW)
                if isinstance(event, Received):
                    assert [record.line for record in event.batch.records()] == lines_of(frame)
                    session.committed(event.batch.number, NOW)
            continue
        if frame["frame"] == "binary":
            session.send(lines_of(frame), NOW)
        out += session.frames_to_send()
        expected, got = message_of(frame), out.pop(0)
        if isinstance(expected, str) and not exact:
            assert isinstance(got, str)
            assert json.loads(got) == json.loads(expected)
            assert " " not in got
        else:
            assert got == expected
    assert out == []
    assert session.state is State.OPEN


def test_we_are_the_hub_that_the_go_hub_was() -> None:
    replay("client-to-go-hub", "hub", Session.hub("go-hub", now_s=NOW), exact=True)


def test_we_are_the_client_that_the_go_client_was() -> None:
    session = Session.client("go-client", ["alerts"], now_s=NOW, features=())
    replay("go-client-to-hub", "client", session, exact=True)


def test_a_go_client_is_served() -> None:
    replay("go-client-to-hub", "hub", Session.hub("py-hub", now_s=NOW), exact=False)


def test_a_go_hub_is_used() -> None:
    session = Session.client("py-client", ["alerts", "secret"], now_s=NOW, features=["x-unknown-field"])
    replay("client-to-go-hub", "client", session, exact=False)


# Handshake.


def test_a_client_says_first_what_it_asks_for_each_channel_once() -> None:
    session = Session.client("c", ["a", "b", "a"], now_s=NOW, ephemeral=True)
    assert session.frames_to_send() == [client_hello("c", ["a", "b"], True, ["pipelined", "any-version"])]
    assert not session.can_send


def test_a_hub_says_nothing_until_it_lets_the_client_in() -> None:
    session = Session.hub("h", now_s=NOW)
    assert session.frames_to_send() == []
    session.accept(NOW)
    session.receive(client_hello("c", ["a", "../x"], True, ["pipelined"]), NOW)
    frames, events = take(session)
    assert frames == []
    assert isinstance(events[0], HelloReceived)
    hello = events[0].hello
    assert (hello.instance_name, hello.subscribe, hello.ephemeral) == ("c", ("a",), True)
    assert hello.refused == ("'../x'",)
    assert not session.can_send
    session.accept(NOW)
    assert session.frames_to_send() == [hub_hello("h", ["pipelined"])]
    assert session.can_send


@pytest.mark.parametrize("hello", ["", GO_CLIENT], ids=["before the handshake", "after it"])
def test_a_hub_refuses(hello: str) -> None:
    session = Session.hub("h", now_s=NOW)
    if hello:
        session.receive(hello, NOW)
    session.refuse()
    assert close_of(session) == (4403, "not in allowlist")
    session.receive(GO_CLIENT, NOW)
    session.accept(NOW)
    assert take(session) == ([], [])


def test_a_go_client_is_told_of_no_features() -> None:
    session = Session.hub("go-hub", now_s=NOW)
    session.receive(GO_CLIENT, NOW)
    session.accept(NOW)
    assert session.frames_to_send() == ['{"instance_name":"go-hub","role":"hub","version":"1"}']


def test_what_one_side_cannot_do_is_not_used() -> None:
    client = Session.client("c", [], now_s=NOW)
    client.receive(hub_hello("h", ["any-version", "from-the-future"]), NOW)
    assert client.features == {"any-version"}


@pytest.mark.parametrize("make", [Session.hub, Session.client])
@pytest.mark.parametrize("message", ["null", "[]", "{}", "", "x", b"", frame_of([line("1")]), "{" * 10_000])
def test_something_else_than_a_handshake_closes(make: Callable[..., Session], message: str | bytes) -> None:
    session = make("n", now_s=NOW)
    session.frames_to_send()
    session.receive(message, NOW)
    close = close_of(session)
    assert close.code == CloseCode.PROTOCOL_ERROR
    assert "handshake" in close.reason


def test_the_wrong_side_is_refused() -> None:
    session = Session.client("n", now_s=NOW)
    session.receive(GO_CLIENT, NOW)
    assert close_of(session).reason == "handshake: role is 'client', not \"hub\""


def test_a_long_handshake_is_refused() -> None:
    session = Session.hub("h", now_s=NOW)
    assert session.max_message_bytes == 65_536
    session.receive(client_hello("ü" * 33_000, [], False, ()), NOW)
    assert close_of(session) == (1009, "handshake of more than 65,536 bytes")


@pytest.mark.parametrize("message", [GO_CLIENT, b"", ack_text("")])
def test_a_client_that_does_not_wait_for_the_answer_is_refused(message: str | bytes) -> None:
    session = Session.hub("h", now_s=NOW)
    session.receive(GO_CLIENT, NOW)
    session.receive(message, NOW)
    assert close_of(session).code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("make", [Session.hub, Session.client])
def test_a_peer_that_says_nothing_is_closed_after_ten_seconds(make: Callable[..., Session]) -> None:
    session = make("n", now_s=NOW)
    session.frames_to_send()
    assert session.deadline_s == NOW + 10
    session.tick(NOW + 9.9)
    assert take(session) == ([], [])
    session.tick(NOW + 10)
    assert close_of(session) == (1002, "no handshake within 10 s")


def test_a_hub_that_takes_its_time_to_answer_is_not_the_clients_fault() -> None:
    session = Session.hub("n", now_s=NOW)
    session.receive(GO_CLIENT, NOW)
    assert session.deadline_s is None
    session.tick(NOW + 100)
    assert session.state is State.GREETED


# What comes.


@either_role
def test_a_batch_is_acknowledged_when_it_is_committed(opened: Opened) -> None:
    session = opened()
    session.receive(frame_of([line("1"), line("2")]), NOW)
    (batch,) = received(session)
    assert (batch.number, batch.count, batch.size_bytes) == (1, 2, 2 * (4 + len(line("1"))))
    assert [record.head.id for record in batch.records()] == ["1", "2"]
    session.tick(NOW + 3_600)
    assert session.frames_to_send() == []
    session.committed(1, NOW)
    assert session.frames_to_send() == [ack_text("2")]
    session.committed(1, NOW)
    assert take(session) == ([], [])


@pytest.mark.parametrize(
    ("lines", "last_id"),
    [
        ([], ""),
        ([b""], ""),
        ([line("1"), b"{"], ""),
        ([line("1"), b"[]"], ""),
        ([b'{"v":1,"id":"x","channel":7}'], ""),
        ([b"{", line("2")], "2"),
        ([line("1"), line("1")], "1"),
        ([line("big").replace(b'"i"', b'"%b"' % (b"i" * 300))], "big"),
        ([b'{"v":2,"id":"later","channel":"c"}'], "later"),
        ([b'{"v":1}'], ""),
        ([b'{"v":1,"ID":"case"}'], "case"),
        ([line('\\"\\u00fc')], '"ü'),
        ([line("\\ud800")], "\ufffd"),
        ([line("n" * 1_024)], "n" * 1_024),
        ([line("n" * 1_025)], ""),
    ],
)
@either_role
def test_there_is_one_acknowledgement_whatever_the_frame_holds(
    opened: Opened, lines: list[bytes], last_id: str
) -> None:
    session = opened(max_batch_bytes=2_000)
    session.receive(frame_of(lines), NOW)
    (batch,) = received(session)
    assert len(list(batch.records())) == len(lines)
    assert session.frames_to_send() == []
    session.committed(batch.number, NOW)
    assert session.frames_to_send() == [ack_text(last_id)]
    assert session.state is State.OPEN


def test_a_record_that_is_too_big_is_known_by_its_head_only() -> None:
    session = open_hub(max_batch_bytes=len(line("1")))
    session.receive(frame_of([line("1"), line("22"), line("3")]), NOW)
    (batch,) = received(session)
    small, big, after = batch.records()
    assert (small.fault, after.fault, after.head.id) == (None, None, "3")
    assert (big.fault, big.line, big.head.id, big.head.channel) == (Fault.TOO_BIG, b"", "22", "c")
    assert big.detail == f"reason=too_big bytes={len(line('22'))}"


def test_acknowledgements_keep_the_order_of_the_frames_whatever_is_committed_first() -> None:
    session = pipelined_hub()
    for message_id in ("1", "2", "3"):
        session.receive(frame_of([line(message_id)]), NOW)
    assert [batch.number for batch in received(session)] == [1, 2, 3]
    session.committed(3, NOW)
    session.committed(2, NOW)
    assert session.frames_to_send() == []
    session.committed(1, NOW)
    assert session.frames_to_send() == [ack_text("1"), ack_text("2"), ack_text("3")]


@either_role
def test_a_batch_that_is_not_committed_gets_no_acknowledgement(opened: Opened) -> None:
    session = opened()
    session.receive(frame_of([line("1")]), NOW)
    session.receive(frame_of([line("2")]), NOW)
    session.committed(2, NOW)
    session.commit_failed(1, "permission denied")
    close = close_of(session)
    assert close == (1011, "batch 1 not committed: permission denied")
    session.committed(1, NOW)
    assert take(session) == ([], [])


@either_role
def test_a_truncated_frame_closes_and_nothing_of_it_is_taken(opened: Opened) -> None:
    session = opened()
    session.receive(frame_of([line("1")])[:-1], NOW)
    assert not any(isinstance(event, Received) for event in session._events)
    close = close_of(session)
    assert close.code == CloseCode.PROTOCOL_ERROR
    assert close.reason.startswith("truncated frame")


@either_role
def test_a_frame_over_the_limit_closes(opened: Opened) -> None:
    session = opened(max_message_bytes=1_000)
    assert session.max_message_bytes == 1_000
    session.receive(b"\0" * 1_001, NOW)
    assert close_of(session) == (1009, "a frame of 1,001 bytes, at most 1,000")


def test_a_frame_of_very_many_records_closes() -> None:
    session = open_hub(max_records=1_000)
    session.receive(frame_of([b""] * 1_000), NOW)
    assert session.state is State.OPEN
    session.receive(frame_of([b""] * 1_001), NOW)
    assert close_of(session) == (1009, "a frame of more than 1,000 records")


def test_reading_stops_while_batches_wait() -> None:
    session = open_hub(window_batches=2)
    session.receive(frame_of([line("1")]), NOW)
    assert session.can_receive
    session.receive(frame_of([line("2")]), NOW)
    assert not session.can_receive
    session.committed(2, NOW)
    assert not session.can_receive
    session.committed(1, NOW)
    assert session.can_receive


def test_reading_stops_while_much_waits() -> None:
    session = open_hub(window_bytes=1_000)
    session.receive(frame_of([b" " * 2_000]), NOW)
    assert not session.can_receive
    session.committed(1, NOW)
    assert session.can_receive


def test_a_shell_that_reads_on_all_the_same_closes() -> None:
    session = open_hub(window_batches=1)
    session.receive(b"", NOW)
    session.receive(b"", NOW)
    assert close_of(session) == (1002, "1 batches wait for their commit; no more are taken")


def test_a_peer_that_does_not_read_its_acknowledgements_is_closed() -> None:
    session = open_hub(unsent_acks=3)
    for number in range(1, 5):
        session.receive(b"", NOW)
        session.committed(number, NOW)
    frames = session.frames_to_send()
    assert frames[:3] == [ack_text("")] * 3
    assert frames[3] == (1002, "4 acknowledgements wait, the peer does not read")


# What goes.


@either_role
@pytest.mark.parametrize("text", [ack_text("2"), ack_text("1"), ack_text(""), "{}", '{"last_id":null}', "x" * 70_000])
def test_any_acknowledgement_ends_the_batch_in_flight(opened: Opened, text: str) -> None:
    session = opened()
    assert session.send([line("1"), line("2")], NOW) == 1
    assert not session.can_send
    assert session.frames_to_send() == [frame_of([line("1"), line("2")])]
    session.receive(text, NOW + 1.5)
    (event,) = session.events()
    assert isinstance(event, Acknowledged)
    assert (event.number, event.took_s) == (1, 1.5)
    assert session.can_send
    assert session.in_flight == 0


@either_role
def test_an_acknowledgement_of_nothing_closes(opened: Opened) -> None:
    session = opened()
    session.send([line("1")], NOW)
    session.receive(ack_text("1"), NOW)
    session.receive(ack_text("1"), NOW)
    assert close_of(session) == (1002, "an acknowledgement, and nothing is in flight")


@either_role
@pytest.mark.parametrize("text", ["null", "[]", "x", "{", '{"last_id":1}', GO_CLIENT.replace("}", ',"last_id":{}}')])
def test_another_text_closes_and_the_batch_is_in_flight(opened: Opened, text: str) -> None:
    session = opened()
    session.send([line("1")], NOW)
    session.receive(text, NOW)
    event = session.events()[-1]
    assert isinstance(event, Closed)
    assert event.code == CloseCode.PROTOCOL_ERROR
    assert event.in_flight == (1,)


def test_a_go_peer_has_one_batch_in_flight() -> None:
    session = open_hub()
    session.send([line("1")], NOW)
    with pytest.raises(RuntimeError, match="1 in flight"):
        session.send([line("2")], NOW)


def test_a_peer_of_ours_has_several() -> None:
    session = pipelined_hub(window_batches=3)
    assert [session.send([line(str(number))], NOW) for number in (1, 2, 3)] == [1, 2, 3]
    assert not session.can_send
    session.receive(ack_text("3"), NOW + 1)
    assert session.can_send
    assert session.in_flight == 2
    (event,) = session.events()
    assert isinstance(event, Acknowledged)
    assert event.number == 1


def test_what_is_in_flight_to_it_is_bounded_in_bytes() -> None:
    session = pipelined_hub(window_bytes=300)
    session.send([line("1")], NOW)
    session.send([line("1")], NOW)
    assert session.can_send
    session.send([line("1")], NOW)
    assert not session.can_send
    session.receive(ack_text("1"), NOW)
    assert session.can_send


@either_role
def test_a_peer_that_does_not_acknowledge_is_closed_after_a_minute(opened: Opened) -> None:
    session = opened()
    assert session.deadline_s is None
    session.send([line("1")], NOW + 100)
    assert session.deadline_s == NOW + 160
    session.tick(NOW + 159)
    assert session.state is State.OPEN
    session.tick(NOW + 160)
    frames, events = take(session)
    assert frames[-1] == (1002, "no acknowledgement within 60 s")
    assert events == [Closed(1002, "no acknowledgement within 60 s", by_peer=False, in_flight=(1,))]


def test_each_acknowledgement_gives_the_next_batch_a_minute() -> None:
    session = pipelined_hub()
    session.send([line("1")], NOW)
    session.send([line("2")], NOW + 10)
    assert session.deadline_s == NOW + 60
    session.receive(ack_text("1"), NOW + 50)
    assert session.deadline_s == NOW + 110
    session.receive(ack_text("2"), NOW + 60)
    assert session.deadline_s is None


def test_acknowledgements_that_nobody_reads_are_not_missed() -> None:
    session = pipelined_hub(window_batches=1)
    session.send([line("1")], NOW)
    session.receive(b"", NOW + 1)
    assert not session.can_receive
    assert session.deadline_s is None
    session.tick(NOW + 500)
    session.committed(1, NOW + 500)
    assert session.deadline_s == NOW + 560


# The end.


def test_a_stop_waits_for_what_is_under_way() -> None:
    session = pipelined_hub()
    session.send([line("1")], NOW)
    session.receive(frame_of([line("2")]), NOW)
    take(session)
    session.drain(NOW)
    assert not session.can_send
    assert session.deadline_s == NOW + 10
    session.receive(frame_of([line("3")]), NOW)
    session.receive(ack_text("1"), NOW)
    assert [type(event) for event in session.events()] == [Acknowledged]
    session.committed(1, NOW)
    frames, events = take(session)
    assert frames == [ack_text("2"), Close(1001, "going away")]
    assert events == [Closed(1001, "going away", by_peer=False, in_flight=())]


@either_role
def test_a_stop_ends_at_once_where_nothing_is_under_way(opened: Opened) -> None:
    session = opened()
    session.drain(NOW)
    assert close_of(session) == (1001, "going away")


@pytest.mark.parametrize("make", [Session.hub, Session.client])
def test_a_stop_during_the_handshake(make: Callable[..., Session]) -> None:
    session = make("n", now_s=NOW)
    session.drain(NOW)
    assert close_of(session).code == 1001


def test_a_stop_does_not_wait_for_ever() -> None:
    session = open_hub()
    session.send([line("1")], NOW)
    session.drain(NOW)
    session.drain(NOW + 5)
    session.tick(NOW + 10)
    frames, events = take(session)
    assert frames[-1] == (1001, "going away")
    assert events == [Closed(1001, "going away", by_peer=False, in_flight=(1,))]


def test_another_connection_takes_the_place() -> None:
    session = open_hub()
    session.close(CloseCode.REPLACED, "replaced")
    session.close(CloseCode.NORMAL, "again")
    assert close_of(session) == (4409, "replaced")


@either_role
def test_the_peer_closes(opened: Opened) -> None:
    session = opened()
    session.send([line("1")], NOW)
    session.receive(frame_of([line("2")]), NOW)
    session.connection_lost(4409, "replaced\n" * 100)
    session.connection_lost()
    frames, events = take(session)
    assert frames == []
    closed = events[-1]
    assert isinstance(closed, Closed)
    assert (closed.code, closed.by_peer, closed.in_flight) == (4409, True, (1,))
    assert closed.reason.startswith("replaced?replaced?")
    session.committed(1, NOW)
    session.receive(b"", NOW)
    session.tick(NOW + 1_000)
    session.drain(NOW)
    assert take(session) == ([], [])


def test_a_connection_that_is_gone_says_1006() -> None:
    session = open_client()
    session.connection_lost()
    assert session.events() == [Closed(1006, "", by_peer=True, in_flight=())]


# Two of ours.


def run(left: Session, right: Session) -> None:
    """Carry frames between two sessions until both are silent."""
    while frames := [(right, frame) for frame in left.frames_to_send()] + [
        (left, frame) for frame in right.frames_to_send()
    ]:
        for to, frame in frames:
            if isinstance(frame, Close):
                to.connection_lost(*frame)
            else:
                to.receive(frame, NOW)


def test_two_of_ours_exchange_batches_both_ways() -> None:
    client, hub = Session.client("c", ["x"], now_s=NOW), Session.hub("h", now_s=NOW)
    run(client, hub)
    hub.accept(NOW)
    run(client, hub)
    assert client.features == hub.features == {"pipelined", "any-version"}
    for side in (client, hub):
        side.events()
        while side.can_send:
            side.send([line("1"), line("2")], NOW)
    assert client.in_flight == hub.in_flight == Limits().window_batches
    run(client, hub)
    for side in (client, hub):
        for batch in received(side):
            assert [record.head.id for record in batch.records()] == ["1", "2"]
            side.committed(batch.number, NOW)
    run(client, hub)
    for side in (client, hub):
        acknowledged = [event.number for event in side.events() if isinstance(event, Acknowledged)]
        assert acknowledged == list(range(1, Limits().window_batches + 1))
        assert side.in_flight == 0
    client.drain(NOW)
    run(client, hub)
    assert hub.events() == [Closed(1001, "going away", by_peer=True, in_flight=())]


# Whatever may come.

LIMITS = Limits(
    max_batch_bytes=300,
    max_message_bytes=1_500,
    max_records=20,
    handshake_bytes=400,
    subscribe_names=4,
    window_batches=3,
    window_bytes=1_000,
    unsent_acks=5,
)
records = st.sampled_from(
    [b"", b"{", b"[]", b"null", b'{"v":1}', b'{"v":2,"id":"x"}', line("a"), line("b"), line("long" * 100)]
) | st.binary(max_size=30)
frames_of_records = st.lists(records, max_size=25).map(frame_of)
binaries = frames_of_records | st.binary(max_size=50) | frames_of_records.map(lambda frame: frame[:-1])
handshakes = st.sampled_from(
    [GO_CLIENT, GO_HUB, client_hello("o", ["x"], True, ["pipelined"]), hub_hello("o", ["pipelined"])]
)
acks = st.sampled_from([ack_text("a"), ack_text(""), "{}"])
texts = acks | handshakes | st.text(max_size=50) | st.sampled_from(["null", "[]", "x" * 500, '{"last_id":3}'])


class AnyPeer(RuleBasedStateMachine):
    """A session, a shell that keeps to its rules, and a peer that keeps to none, at least not for long."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = NOW
        self.session = self.begun()
        self.session.frames_to_send()
        self.steps = self.calm_steps = 0
        self.waiting: list[int] = []
        self.taken = 0
        self.acked = 0
        self.committed: set[int] = set()
        self.sent = 0
        self.ended = 0
        self.closed = False

    def begun(self) -> Session:
        return Session.hub("h", now_s=NOW, limits=LIMITS)

    @initialize(features=st.sampled_from([(), ("pipelined",)]), calm_steps=st.integers(1, 40))
    def handshake(self, features: tuple[str, ...], calm_steps: int) -> None:
        is_hub = self.session.role == "hub"
        hello = client_hello("c", ["x"], False, features) if is_hub else hub_hello("h", features)
        self.session.receive(hello, self.now_s)
        self.session.accept(self.now_s)
        self.calm_steps = calm_steps

    @property
    def is_calm(self) -> bool:
        return self.steps < self.calm_steps

    @rule(message=binaries | texts)
    @precondition(lambda self: self.session.can_receive and not self.is_calm)
    def message(self, message: str | bytes) -> None:
        self.session.receive(message, self.now_s)

    @rule(message=acks)
    @precondition(lambda self: self.session.can_receive and self.session.in_flight)
    def acknowledgement(self, message: str) -> None:
        self.session.receive(message, self.now_s)

    @rule(message=frames_of_records)
    @precondition(lambda self: self.session.can_receive and self.session.state is State.OPEN)
    def batch(self, message: bytes) -> None:
        self.session.receive(message, self.now_s)

    @rule(lines=st.lists(records, max_size=3))
    @precondition(lambda self: self.session.can_send)
    def send(self, lines: list[bytes]) -> None:
        self.sent += 1
        assert self.session.send(lines, self.now_s) == self.sent

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def commit(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(number)
        self.committed.add(number)
        self.session.committed(number, self.now_s)

    @rule(seconds=st.sampled_from([1.0, 9.0]))
    def time(self, seconds: float) -> None:
        self.now_s += seconds
        self.session.tick(self.now_s)

    @rule()
    @precondition(lambda self: not self.is_calm)
    def drain(self) -> None:
        self.session.drain(self.now_s)

    @invariant()
    def one_acknowledgement_for_each_frame_in_order_and_not_before_its_commit(self) -> None:
        self.steps += 1
        frames, events = take(self.session)
        assert not self.closed or (frames, events) == ([], [])
        for event in events:
            assert not self.closed
            match event:
                case Received(batch):
                    self.taken += 1
                    assert batch.number == self.taken
                    assert sum(1 for _ in batch.records()) == batch.count <= LIMITS.max_records
                    self.waiting.append(batch.number)
                case Acknowledged(number):
                    self.ended += 1
                    assert number == self.ended
                case Closed(in_flight=in_flight):
                    self.closed = True
                    assert in_flight == tuple(range(self.ended + 1, self.sent + 1))
        for frame in frames:
            if isinstance(frame, str) and "last_id" in frame:
                self.acked += 1
                assert self.acked in self.committed
        if not self.closed:
            assert self.acked == next(n for n in range(self.taken + 1) if n + 1 not in self.committed)
            assert self.session.in_flight == self.sent - self.ended
        else:
            assert isinstance(frames[-1], Close) if frames else self.session.state is State.CLOSED
        assert len(self.waiting) <= LIMITS.window_batches or self.closed
        assert self.session.in_flight <= LIMITS.window_batches


TestAnyPeer = AnyPeer.TestCase
TestAnyPeer.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class AnyHub(AnyPeer):
    """The same for the side that connects."""

    def begun(self) -> Session:
        return Session.client("c", ["x"], now_s=NOW, limits=LIMITS)


TestAnyHub = AnyHub.TestCase
TestAnyHub.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@given(st.lists(binaries | texts, max_size=8), st.booleans())
def test_no_message_does_more_than_close(messages: list[str | bytes], is_hub: bool) -> None:
    session = Session.hub("h", now_s=NOW, limits=LIMITS) if is_hub else Session.client("c", now_s=NOW, limits=LIMITS)
    for message in messages:
        session.receive(message, NOW)
        for event in session.events():
            if isinstance(event, Received):
                session.committed(event.batch.number, NOW)
            assert not isinstance(event, Acknowledged)
        session.accept(NOW)
    closes = [frame for frame in session.frames_to_send() if isinstance(frame, Close)]
    assert len(closes) == (session.state is State.CLOSED)


@given(st.lists(binaries | texts, max_size=30), st.booleans())
def test_a_shell_that_looks_at_nothing_keeps_little(messages: list[str | bytes], is_hub: bool) -> None:
    session = Session.hub("h", now_s=NOW, limits=LIMITS) if is_hub else Session.client("c", now_s=NOW, limits=LIMITS)
    for message in [GO_CLIENT if is_hub else GO_HUB, *messages]:
        session.receive(message, NOW)
        session.accept(NOW)
    assert len(session._uncommitted) <= LIMITS.window_batches
    assert session._uncommitted.size_bytes <= LIMITS.window_bytes + LIMITS.max_message_bytes
    assert len(session._frames) <= 3
    assert len(session._events) <= LIMITS.window_batches + 2
