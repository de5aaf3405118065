"""Routes and records: who gets a message, what is kept, and that nothing else of a line is touched (cases 67-76)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.federation import members
from keyop.federation import record as records
from keyop.federation.limits import Limits
from keyop.federation.record import Fault, Record, read_record
from keyop.federation.route import Link, Stays
from keyop.federation.wire import FEATURES
from keyop.messages.envelope import BadLine, EnvelopeEncoder, decode_line, decode_line_raw
from keyop.messages.json_text import HAVE_MSGSPEC, scan_object

MAX_BYTES = 4_194_304
PLAIN = (
    b'{"v":1,"id":"01952c3e-7b2a-7c4d-9f1a-3e8d2b1c0a00","ts":"2026-11-23T21:00:00.000000001Z","channel":"readings",'
    b'"origin":"pi","payload_type":"com.example.Reading","payload":{"i":1.50,"i":2,"<":"\\u00fc","route":["x"]}}'
)


def with_route(names: bytes, line: bytes = PLAIN) -> bytes:
    return line.replace(b',"payload":', b',"route":[%b],"payload":' % names, 1)


def link(own: str = "me", peer: str = "peer", *, ours: bool = True, record_bytes: int = MAX_BYTES) -> Link:
    return Link(own, peer, frozenset(FEATURES if ours else ()), record_bytes)


def read(line: bytes) -> Record:
    return read_record(line, MAX_BYTES)


def taken_over(line: bytes, over: Link | None = None) -> bytes:
    record = read(line)
    assert record.fault is None, record
    return (over or link()).taken_over(record)


# Records.


def test_a_record_is_read_without_its_payload() -> None:
    record = read(with_route(b'"a","b"'))
    head = record.head
    assert (record.fault, record.detail) == (None, "")
    assert (head.v, head.id, head.channel, head.origin) == (1, "01952c3e-7b2a-7c4d-9f1a-3e8d2b1c0a00", "readings", "pi")
    assert head.route == ("a", "b")
    assert bytes(head.payload) == PLAIN[PLAIN.index(b'{"i"') : -1]


@pytest.mark.parametrize(
    ("line", "fault", "detail"),
    [
        (b"", Fault.UNREADABLE, "not a JSON object: the object does not end"),
        (b"null", Fault.UNREADABLE, "not a JSON object"),
        (b"[]", Fault.UNREADABLE, "not a JSON object"),
        (b"{", Fault.UNREADABLE, "not a JSON object"),
        (PLAIN[:-1], Fault.UNREADABLE, "not a JSON object"),
        (PLAIN + b"}", Fault.UNREADABLE, "not a JSON object"),
        (PLAIN + PLAIN, Fault.UNREADABLE, "not a JSON object"),
        (b'{"v":1,"payload":NaN}', Fault.UNREADABLE, "not a JSON object: NaN is not JSON"),
        (b'{"v":1,"payload":{"a":Infinity}}', Fault.UNREADABLE, "not a JSON object"),
        (b'{"v":1,"id":"x","payload":01}', Fault.UNREADABLE, "not a JSON object"),
        (b'{"v":1,"id":"x","payload":"\x01"}', Fault.UNREADABLE, "not a JSON object"),
        (b'{"v":1,"payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Fault.UNREADABLE, "not a JSON object"),
        (b'{"v":1.0}', Fault.UNREADABLE, "the value of v is not an integer"),
        (b'{"v":"1"}', Fault.UNREADABLE, "the value of v is not an integer"),
        (b'{"v":true}', Fault.UNREADABLE, "the value of v is not an integer"),
        (b'{"v":1,"id":7}', Fault.UNREADABLE, "the value of id has the wrong type"),
        (b'{"v":1,"Channel":[]}', Fault.UNREADABLE, "the value of channel has the wrong type"),
        (b'{"v":1,"route":"a"}', Fault.UNREADABLE, "the value of route has the wrong type"),
        (b'{"v":1,"route":{"a":1},"payload":1}', Fault.UNREADABLE, "the value of route has the wrong type"),
        (b'{"v":1,"route":["a",1],"payload":1}', Fault.UNREADABLE, "the value of route has the wrong type"),
        (b"{}", Fault.OTHER_VERSION, "v is missing"),
        (b'{"v":null,"id":"x"}', Fault.OTHER_VERSION, "v is missing"),
        (b'{"v":2,"id":"x"}', Fault.OTHER_VERSION, "v is 2"),
        (b'{"v":1,"v":2}', Fault.OTHER_VERSION, "v is 2"),
    ],
)
def test_a_line_that_is_no_envelope_is_told_apart(line: bytes, fault: Fault, detail: str) -> None:
    record = read(line)
    assert record.fault is fault
    assert record.detail.startswith(detail)


@pytest.mark.parametrize(
    ("line", "route"),
    [
        (b'{"v":2,"v":1}', ()),
        (b'{"V":1,"Id":"x","ROUTE":["a"]}', ("a",)),
        (b'{"v":1,"id":"y","id":"x","route":["b"],"rout\\u0065":["a"]}', ("a",)),
        (b'{"v":1,"id":"x","route":["a"],"route":null}', ("a",)),
        (b'{"v":1,"id":"x","route":["a",null]}', ("a", "")),
        (b'{"v":1,"id":"x","route":null,"payload":null}', ()),
        (b' { "v" : 1 , "id" : "x" , "route" : [ "a" ] } ', ("a",)),
        (b'{"v":1,"id":"x","unknown":{"id":"z"},"payload":1}', ()),
        (b'{"v":1,"id":"x","route":["\\ud800","\xff\xfe"]}', ("\ufffd", "\ufffd\ufffd")),
    ],
)
def test_what_the_go_program_reads_is_read(line: bytes, route: tuple[str, ...]) -> None:
    record = read(line)
    assert record.fault is None, record
    assert record.head.route == route
    assert record.head.id in ("x", "")


def test_another_version_has_what_is_readable_of_it() -> None:
    record = read(b'{"v":2,"id":"x","channel":"c","origin":7,"route":{},"payload":1}')
    assert (record.fault, record.head.id, record.head.channel) == (Fault.OTHER_VERSION, "x", "c")


def test_a_newline_inside_of_a_record_cannot_end_the_line() -> None:
    record = read(PLAIN.replace(b',"origin"', b',\n\n"origin"'))
    assert record.fault is None
    assert b"\n" not in record.line
    assert len(record.line) == len(PLAIN) + 2
    assert read(b'{"v":2,\n"id":"x"}').line == b'{"v":2, "id":"x"}'


def test_a_record_of_just_the_size_is_kept_and_one_byte_more_is_not() -> None:
    assert read_record(PLAIN, len(PLAIN)).fault is None
    record = read_record(PLAIN, len(PLAIN) - 1)
    assert (record.fault, record.line) == (Fault.TOO_BIG, b"")
    assert record.detail == f"reason=too_big bytes={len(PLAIN)}"
    assert record.head.channel == "readings"
    assert read_record(b"[" * 50, 10).fault is Fault.TOO_BIG


keys = st.sampled_from(
    ["v", "id", "ts", "channel", "origin", "payload_type", "correlation_id", "service_name", "route", "payload"]
)
any_keys = keys | keys.map(str.upper) | keys.map(str.title) | st.text(max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([1, "me", "peer"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_keys, inner, max_size=3),
    max_leaves=6,
)
blanks = st.sampled_from(["", "", "", " ", "\t", "\r "])
escaped = st.booleans()
routes = st.lists(st.sampled_from(["a", "b", "me", "peer", "ü<"]), max_size=3)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Lines as any program may write them: any keys in any order and case, repeated, with blanks and escapes."""
    pairs = draw(st.lists(st.tuples(any_keys, values), max_size=5))
    pairs += draw(st.sampled_from([[], [("v", 1)], [("v", 1), ("v", None)]]))
    pairs += [("route", draw(routes)) for _ in range(draw(st.integers(0, 2)))]
    parts = []
    for key, value in draw(st.permutations(pairs)):
        key_text = json.dumps(key, ensure_ascii=draw(escaped))
        if draw(escaped) and key.isascii() and key:
            key_text = f'"\\u{ord(key[0]):04x}{json.dumps(key[1:])[1:]}'
        value_text = json.dumps(value, ensure_ascii=draw(escaped), separators=(",", ":"))
        parts.append(f"{draw(blanks)}{key_text}{draw(blanks)}:{draw(blanks)}{value_text}{draw(blanks)}")
    text = draw(blanks) + "{" + ",".join(parts) + "}" + draw(blanks)
    return text.encode("utf-8", "replace")


@given(objects() | st.binary(max_size=30))
def test_hub_and_subscribers_read_the_same(line: bytes) -> None:
    record, found = read(line), decode_line(line.replace(b"\n", b" "))
    if isinstance(found, BadLine):
        assert record.fault is not None
        assert record.fault.name == {"DAMAGED": "UNREADABLE", "RECOVERED": "UNREADABLE"}.get(
            found.fault.name, found.fault.name
        )
        return
    assert record.fault is None
    head = record.head
    assert (head.id, head.ts, head.channel, head.route) == (found.id, found.ts, found.channel, found.route)


# What is kept.


def test_a_message_from_its_origin_gets_both_names() -> None:
    assert taken_over(PLAIN) == with_route(b'"peer","me"')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"a"', b'"a","peer","me"'),
        (b'"peer"', b'"peer","me"'),
        (b'"peer","a"', b'"peer","a","me"'),
        (b'"\xc3\xbc","a \\" b"', b'"\xc3\xbc","a \\" b","peer","me"'),
        (b"", b'"peer","me"'),
        (b'"a" ,"b"', b'"a","b","peer","me"'),
        (b'"a",null', b'"a","","peer","me"'),
        (b'"\\u0061"', b'"a","peer","me"'),
    ],
)
def test_a_relayed_message_gets_those_that_are_missing(before: bytes, after: bytes) -> None:
    assert taken_over(with_route(before)) == with_route(after)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"v":1}', b'{"v":1,"route":["peer","me"]}'),
        (b' {"v" :1 } ', b' {"v" :1,"route":["peer","me"] } '),
        (b'{"payload":{"a":1},"v":1}', b'{"route":["peer","me"],"payload":{"a":1},"v":1}'),
        (b'{"v":1, "payload": 1}', b'{"v":1, "route":["peer","me"],"payload": 1}'),
        (b'{"v":1,"PAYLOAD":1}', b'{"v":1,"route":["peer","me"],"PAYLOAD":1}'),
        (b'{"v":1,"payload":1,"payload":2}', b'{"v":1,"payload":1,"route":["peer","me"],"payload":2}'),
        (b'{"v":1,"payload":1,"payload":2} ', b'{"v":1,"payload":1,"route":["peer","me"],"payload":2} '),
        (b'{"v":1,"payload":1,"id":"x"}', b'{"v":1,"route":["peer","me"],"payload":1,"id":"x"}'),
        (b'{"v":1,"Route":["a"],"payload":1}', b'{"v":1,"Route":["a","peer","me"],"payload":1}'),
        (b'{"v":1,"payload":1,"route":["a"]}', b'{"v":1,"payload":1,"route":["a","peer","me"]}'),
        (
            b'{"v":1,"route":["a"],"route":["b"],"payload":1}',
            b'{"v":1,"route":["a"],"route":["b","peer","me"],"payload":1}',
        ),
        (b'{"v":1,"route":["a"],"Route":null}', b'{"v":1,"route":["a"],"Route":["a","peer","me"]}'),
        (b'{"v":1,"route":null,"payload":1}', b'{"v":1,"route":["peer","me"],"payload":1}'),
        (b'{"v":1,"rout\\u0065":[],"payload":1}', b'{"v":1,"rout\\u0065":["peer","me"],"payload":1}'),
        (b'{"v":1,"x":"\xff","payload":"\xfe\xc3"}', b'{"v":1,"x":"\xff","route":["peer","me"],"payload":"\xfe\xc3"}'),
        (b'{"v":1,"x":1.50,"payload":1e400}', b'{"v":1,"x":1.50,"route":["peer","me"],"payload":1e400}'),
        (b'{"v":1,"channel":"route","payload":1}', b'{"v":1,"channel":"route","route":["peer","me"],"payload":1}'),
        (
            b'{"v":1,"payload":{"aaaa":1,"payload":2},"channel":"abcdef"}',
            b'{"v":1,"route":["peer","me"],"payload":{"aaaa":1,"payload":2},"channel":"abcdef"}',
        ),
        (
            b'{"v":1,"id":",\\"payload\\":1}","payload":",\\"payload\\":1}"}',
            b'{"v":1,"id":",\\"payload\\":1}","route":["peer","me"],"payload":",\\"payload\\":1}"}',
        ),
    ],
)
def test_any_object_keeps_all_but_its_route(line: bytes, expected: bytes) -> None:
    assert taken_over(line) == expected


def _values(line: bytes) -> list[tuple[str, str]]:
    text = line.decode("utf-8", "surrogateescape")
    return [(key, value_text) for key, _, value_text in scan_object(text)]


@given(objects())
def test_the_route_is_right_and_all_else_is_as_it_was(line: bytes) -> None:
    record = read(line)
    if record.fault is not None:
        return
    over = link()
    kept = over.taken_over(record)
    again = read(kept)
    assert again.fault is None
    assert again.head.route == over.grown(record.head.route)
    before, after = _values(line.replace(b"\n", b" ")), _values(kept)
    routes_before = [at for at, (key, _) in enumerate(before) if key.casefold() == "route"]
    routes_after = [at for at, (key, _) in enumerate(after) if key.casefold() == "route"]
    changed = routes_after.pop()
    if routes_before:
        routes_before.pop()
        assert before[changed][0] == after[changed][0]
        del before[changed]
    del after[changed]
    assert before == after
    assert routes_before == routes_after
    found, was = decode_line_raw(kept), decode_line_raw(line.replace(b"\n", b" "))
    assert not isinstance(found, BadLine)
    assert not isinstance(was, BadLine)
    assert bytes(found.payload) == bytes(was.payload)


@pytest.mark.skipif(not HAVE_MSGSPEC, reason="there is one way without it")
@given(objects() | st.binary(max_size=30))
def test_a_long_line_is_read_like_a_short_one_or_not_at_all(line: bytes) -> None:
    line = line.replace(b"\n", b" ")
    short = records._read_slowly(line)
    taken = link()._taken_over_slowly(short) if short.fault is None else b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "SHORT_BYTES", 0)
        long = records._read_slowly(line)
        if long.fault is not Fault.UNREADABLE:
            assert long == short
            assert not taken or link()._taken_over_slowly(long) == taken
        elif short.fault is None:
            keys = [key for key, _ in _values(line)]
            assert "has two values" in long.detail
            assert len(set(keys)) < len(keys)
        elif short.fault is Fault.UNREADABLE and "wrong type" in short.detail:
            assert long.detail == short.detail or "has two values" in long.detail


NASTY = b"[" + b"[]," * 60_000 + b"1]"


@pytest.mark.skipif(not HAVE_MSGSPEC, reason="without it all of a line is decoded")
@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b'{"v":1,"Id":"x","route":["a",null],"payload":%b}', ""),
        (b' { "v" : 1 , "Id" : "x" , "route" : ["a",""] , "payload" : %b } ', ""),
        (b'{"v":1,"id":"x","ROUTE":["a",""],"x":"\xff","payload":%b}', ""),
        (b'{"v":1,"id":"x","route":["a",""],"x":%b}', ""),
        (b'{"v":1,"id":"x","route":["a",""],"x":%b,"x":%b}', ""),
        (b'{"v":1,"id":"x","x":1,"x":%b}', "not a JSON object: 'x' has two values in a line of"),
        (b'{"v":1,"id":%b}', "the value of id has the wrong type"),
        (b'{"v":%b}', "the value of v is not an integer"),
        (b'{"v":1,"route":%b}', "the value of route has the wrong type"),
        (b'{"v":1,"payload":%b', "not a JSON object"),
        (b'{"v":1,"payload":%b}]', "not a JSON object"),
        (b"[%b]", "not a JSON object"),
        (b'{"v":1,"id":"\\ud800","payload":%b}', "not a JSON object"),
    ],
)
def test_a_long_line_is_never_decoded(monkeypatch: pytest.MonkeyPatch, line: bytes, detail: str) -> None:
    def no_way(text: str) -> None:
        raise AssertionError(text[:100])

    monkeypatch.setattr(members, "scan_members", no_way)
    line = line.replace(b"%b", NASTY)
    record = read(line)
    assert record.detail.startswith(detail)
    assert len(record.detail) < 200
    if not detail:
        assert (record.fault, record.head.id, record.head.route) == (None, "x", ("a", ""))
        kept = link().taken_over(record)
        assert len(kept) - len(line) in (len(b',"peer","me"') - 2 * (b"null" in line), len(b',"peer","me"'))
        assert read(kept).head.route == ("a", "", "peer", "me")


@pytest.mark.skipif(not HAVE_MSGSPEC, reason="without it all of a line is decoded")
def test_a_long_line_of_very_many_members_is_not_read() -> None:
    many = b",".join(b'"%d":1' % number for number in range(20_000))
    assert "more than 1,000 members" in read(b'{"v":1,%b}' % many).detail


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)


@given(
    payload=st.recursive(
        st.none() | st.integers() | texts,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(texts | st.sampled_from(["payload", "route"]), inner, max_size=2)
        ),
        max_leaves=5,
    ),
    words=st.tuples(texts, texts, texts, texts),
    names=st.none() | st.lists(texts | st.sampled_from(["me", "peer", "route", ',"payload":']), min_size=1, max_size=3),
)
def test_the_short_way_and_the_long_way_agree(payload: Any, words: tuple[str, ...], names: list[str] | None) -> None:
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    _, line = EnvelopeEncoder(words[0]).encode("readings", body, *words[1:])
    line = line[:-1]
    if names is not None:
        spelled = ",".join(json.dumps(name, ensure_ascii=False) for name in names)
        line = with_route(spelled.encode(), line) if b',"payload":' not in line.split(b'"payload_type"')[0] else line
    record = read(line)
    assert record.fault is None
    over = link()
    assert over.taken_over(record) == over._taken_over_slowly(record)


def test_the_texts_that_a_link_keeps_are_bounded() -> None:
    over = link()
    for number in range(3_000):
        taken_over(with_route(b'"%d"' % number), over)
    taken_over(with_route(b",".join(b'"%d"' % number for number in range(1_000))), over)
    assert len(over._grown_texts) <= 1_024
    assert len(over._kept_texts) <= 1_024
    assert max(map(len, over._kept_texts.values())) < 100


def test_the_longest_record_still_fits_into_a_line_with_its_route() -> None:
    limits = Limits(max_batch_bytes=32 * 1_048_576)
    room = limits.record_bytes - len(PLAIN)
    line = PLAIN[:-2] + b" " * room + PLAIN[-2:]
    record = read_record(line, limits.record_bytes)
    assert record.fault is None
    assert len(link("m" * 64, "p" * 64).taken_over(record)) <= limits.max_line_bytes


# Who gets what.


def test_a_local_message_goes_to_anybody() -> None:
    assert link().outbound(PLAIN) == (read(PLAIN), None)
    assert link(ours=False).outbound(PLAIN)[1] is None


def test_a_message_does_not_go_to_a_host_that_has_it() -> None:
    assert link().outbound(with_route(b'"peer","me"'))[1] is Stays.HELD
    assert link().outbound(with_route(b'"a","me"'))[1] is None
    assert link().outbound(PLAIN.replace(b'"origin":"pi"', b'"origin":"peer"'))[1] is None


def test_replay_channels_stay() -> None:
    assert link().outbound(PLAIN.replace(b'"readings"', b'"readings.replay"'))[1] is Stays.REPLAY
    assert link().outbound(PLAIN.replace(b'"readings"', b'"readings.dead-letter"'))[1] is None


def test_another_version_goes_unchanged_and_to_peers_of_ours_only() -> None:
    line = b'{"v":2,"id":"x","channel":"c","new":[1]}'
    record, stays = link().outbound(line)
    assert stays is None
    assert record.line == line == link().taken_over(record)
    assert link(ours=False).outbound(line)[1] is Stays.OTHER_VERSION


@pytest.mark.parametrize("line", [b"", b"{", b"[]", PLAIN[:-5]])
def test_what_is_no_envelope_stays(line: bytes) -> None:
    assert link().outbound(line)[1] is Stays.UNREADABLE


def test_of_half_an_envelope_with_a_whole_one_behind_it_the_whole_one_goes() -> None:
    record, stays = link().outbound(PLAIN[:70] + PLAIN)
    assert stays is None
    assert record.line == PLAIN


def test_what_is_too_big_stays_with_its_size() -> None:
    record, stays = link(record_bytes=100).outbound(PLAIN)
    assert stays is Stays.TOO_BIG
    assert record.detail == f"reason=too_big bytes={len(PLAIN)}"


def test_a_message_that_was_here_is_a_loop() -> None:
    assert link().is_loop(read(with_route(b'"me","peer"')))
    assert not link().is_loop(read(with_route(b'"a","peer"')))
    assert not link().is_loop(read(PLAIN))
    assert not link().is_loop(read(PLAIN.replace(b'"origin":"pi"', b'"origin":"me"')))


def test_between_namesakes_the_route_says_nothing() -> None:
    both = link("localhost", "localhost")
    assert both.is_namesake
    assert both.outbound(with_route(b'"localhost"'))[1] is None
    assert not both.is_loop(read(with_route(b'"localhost"')))
    assert taken_over(PLAIN, both) == with_route(b'"localhost"')
    assert taken_over(with_route(b'"localhost","a"'), both) == with_route(b'"localhost","a"')


class Hosts:
    """Hosts that are linked, each with what it holds; messages travel until all is quiet."""

    def __init__(self, links: list[tuple[str, str]], names: dict[str, str] | None = None) -> None:
        self.names = names or {}
        self.links = [*links, *((b, a) for a, b in links)]
        self.held: dict[str, dict[str, bytes]] = {host: {} for pair in links for host in pair}
        self.sent: Counter[tuple[str, str]] = Counter()
        self.loops = 0

    def name(self, host: str) -> str:
        return self.names.get(host, host)

    def publish(self, host: str, message_id: str) -> None:
        line = PLAIN.replace(b"01952c3e-7b2a-7c4d-9f1a-3e8d2b1c0a00", message_id.encode())
        self.held[host][message_id] = line
        waiting = deque([(host, message_id)])
        while waiting:
            host, message_id = waiting.popleft()
            for sender, receiver in self.links:
                if sender == host and self.carry(sender, receiver, message_id):
                    waiting.append((receiver, message_id))

    def carry(self, sender: str, receiver: str, message_id: str) -> bool:
        record, stays = link(self.name(sender), self.name(receiver)).outbound(self.held[sender][message_id])
        if stays is not None:
            return False
        self.sent[sender, receiver] += 1
        arriving = link(self.name(receiver), self.name(sender))
        if arriving.is_loop(record):
            self.loops += 1
            return False
        if message_id in self.held[receiver]:
            return False
        self.held[receiver][message_id] = arriving.taken_over(record)
        return True


def test_a_chain_carries_messages_both_ways_and_none_comes_back() -> None:
    hosts = Hosts([("a", "b"), ("b", "c")])
    for host in "abc":
        hosts.publish(host, f"from-{host}")
    assert all(len(held) == 3 for held in hosts.held.values())
    assert hosts.sent == {("a", "b"): 1, ("b", "c"): 2, ("c", "b"): 1, ("b", "a"): 2}
    assert read(hosts.held["c"]["from-a"]).head.route == ("a", "b", "c")


@pytest.mark.parametrize(
    "links",
    [["ab", "bc", "ca"], ["ab", "ac", "bd", "cd"], ["ab", "bc", "cd", "da", "ac", "bd"]],
    ids=["ring", "diamond", "all"],
)
def test_rings_and_diamonds_bring_a_message_to_each_host_and_end(links: list[str]) -> None:
    hosts = Hosts([(pair[0], pair[1]) for pair in links])
    hosts.publish("a", "one")
    assert all(list(held) == ["one"] for held in hosts.held.values())
    assert sum(hosts.sent.values()) <= 2 * len(links)
    assert hosts.loops == 0


def test_two_hosts_of_one_name_exchange_messages() -> None:
    hosts = Hosts([("a", "b")], {"a": "localhost", "b": "localhost"})
    hosts.publish("a", "one")
    hosts.publish("b", "two")
    assert set(hosts.held["a"]) == set(hosts.held["b"]) == {"one", "two"}


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")).filter(lambda pair: pair[0] != pair[1]),
        min_size=1,
    )
)
def test_any_net_of_hosts_is_served_and_becomes_quiet(links: list[tuple[str, str]]) -> None:
    hosts = Hosts([*dict.fromkeys(tuple(sorted(pair)) for pair in links)])  # type: ignore[misc]
    start = links[0][0]
    hosts.publish(start, "one")
    reached, edge = {start}, [start]
    while edge:
        edge = [b for a, b in hosts.links if a in edge and b not in reached]
        reached.update(edge)
    assert {host for host, held in hosts.held.items() if held} == reached
    assert hosts.loops == 0


@pytest.mark.skipif(not HAVE_MSGSPEC, reason="this is the run without it")
def test_all_of_this_holds_without_msgspec() -> None:
    files = [__file__, __file__.replace("test_route", "test_wire"), __file__.replace("test_route", "test_session")]
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        f"import pytest; sys.exit(pytest.main([*{files!r}, '-q', '-p', 'no:cacheprovider', '-k', 'not Any']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-5000:]


def test_the_usual_line_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_way(line: bytes) -> Record:
        raise AssertionError(line)

    monkeypatch.setattr(records, "_read_slowly", no_way)
    monkeypatch.setattr(Link, "_taken_over_slowly", no_way)
    once = taken_over(PLAIN)
    assert taken_over(once, link("next", "me")) == with_route(b'"peer","me","next"')
