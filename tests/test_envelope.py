"""Envelopes: what is written, and what is made of every line that may come (cases 5, 28, 74, 76)."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.errors import PayloadError
from keyop.messages import envelope as envelopes
from keyop.messages import ids
from keyop.messages.dead_letter import DEAD_LETTER_TYPE, encode_dead_letter
from keyop.messages.envelope import BadLine, Envelope, EnvelopeEncoder, Fault, decode_line, decode_line_raw, line_ts_ns
from keyop.messages.json_text import HAVE_MSGSPEC, NotAnObject, encode_payload, scan_object
from keyop.messages.message import Message
from keyop.messages.timestamps import format_ns, parse_ns
from keyop.storage.segment_reader import SegmentReader

FIXTURE = Path(__file__).parent / "fixtures" / "go-datadir" / "channels"
LIMIT_BYTES = 10_485_760
YEAR_1 = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)

texts = st.text(st.characters(exclude_categories=("Cs",)))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def good(line: bytes) -> Envelope:
    found = decode_line(line)
    assert isinstance(found, Envelope), found
    raw = decode_line_raw(line)
    assert isinstance(raw, Envelope)
    assert (raw.id, raw.ts, raw.route) == (found.id, found.ts, found.route)
    bytes(raw.payload).decode()
    return found


def bad(line: bytes) -> BadLine:
    found = decode_line(line)
    raw = decode_line_raw(line)
    assert isinstance(found, BadLine), found
    assert isinstance(raw, BadLine)
    assert (found.fault, found.start) == (raw.fault, raw.start)
    assert found.reason
    return found


# ---- writing


def test_the_line_has_go_s_keys_in_go_s_order() -> None:
    encoder = EnvelopeEncoder("billing-host")
    message_id, line = encoder.encode("orders", b'{"n":1}', "com.example.Order")
    assert list(json.loads(line)) == ["v", "id", "ts", "channel", "origin", "payload_type", "payload"]
    assert line.startswith(b'{"v":1,"id":"%b","ts":"' % message_id.encode())
    assert line.endswith(
        b'Z","channel":"orders","origin":"billing-host","payload_type":"com.example.Order","payload":{"n":1}}\n'
    )
    _, line = encoder.encode("orders", b"5", "", "c-1", "billing")
    assert b'"payload_type":"","correlation_id":"c-1","service_name":"billing","payload":5}\n' in line
    _, line = encoder.encode("orders", b"5", service_name="billing")
    assert b'"payload_type":"","service_name":"billing","payload":5}\n' in line


def test_ids_and_times_are_those_of_now() -> None:
    before = time.time_ns()
    message_id, line = EnvelopeEncoder("me").encode("orders", b"5")
    ts = good(line[:-1]).ts
    assert len(ts) == 30
    ns = parse_ns(ts)
    assert ns is not None
    assert before <= ns < before + 10**9
    assert uuid.UUID(message_id).version == 7
    assert 0 <= (uuid.UUID(message_id).int >> 80) - before // 10**6 < 1000


@pytest.mark.parametrize("now_ns", [0, 5, 10**9 - 1, 10**9, 1774967721123456789, 1774967721000000000, -1])
def test_the_time_is_spelled_right_whatever_came_before(now_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = EnvelopeEncoder("me")
    for moment_ns in (now_ns, now_ns + 10**9, now_ns, now_ns - 1, now_ns + 1):
        monkeypatch.setattr(envelopes, "time_ns", lambda moment_ns=moment_ns: moment_ns)
        assert good(encoder.encode("orders", b"5")[1][:-1]).ts == format_ns(moment_ns)


@given(texts, texts, texts, texts, json_values)
def test_what_is_written_is_read(origin: str, payload_type: str, correlation: str, service: str, value: Any) -> None:
    encoder = EnvelopeEncoder(origin)
    for _ in range(2):
        message_id, line = encoder.encode("orders", encode_payload(value), payload_type, correlation, service)
        assert line.count(b"\n") == 1
        assert line.endswith(b"}\n")
        assert json.loads(line)["payload"] == value
        found = good(line[:-1])
        assert found.id == message_id
        assert (found.origin, found.payload_type) == (origin, payload_type)
        assert (found.correlation_id, found.service_name, found.route) == (correlation, service, ())
        assert found.payload == value
        raw = decode_line_raw(line[:-1])
        assert isinstance(raw, Envelope)
        assert bytes(raw.payload) == encode_payload(value)


def test_a_payload_of_several_lines_becomes_one() -> None:
    _, line = EnvelopeEncoder("me").encode("orders", b'{\n  "n": [\n1]\r\n}')
    assert line.count(b"\n") == 1
    assert good(line[:-1]).payload == {"n": [1]}


def test_texts_that_are_no_text_are_refused() -> None:
    encoder = EnvelopeEncoder("me")
    for arguments in (("\ud800",), ("t", "\ud800"), ("t", "", "\ud800"), (5,), ("t", 5), ("t", "", b"x")):
        with pytest.raises(PayloadError):
            encoder.encode("orders", b"5", *arguments)  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="origin"):
        EnvelopeEncoder("\ud800")


def test_many_channels_do_not_pile_up() -> None:
    encoder = EnvelopeEncoder("me")
    for number in range(20_000):
        encoder.encode(f"c{number}", b"5")
    assert len(encoder._heads) <= 16_384


# ---- payloads


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    number: int
    price: float | None = None


class Odd:
    pass


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, "null"),
        ({"a": None, "b": [1.5, "null"]}, '{"a":null,"b":[1.5,"null"]}'),
        ("é\u2028\x7f\x01</", '"é\u2028\x7f\\u0001</"'),
        ({1: "a"}, '{"1":"a"}'),
        ((1, 2), "[1,2]"),
        (2**70, "1180591620717411303424"),
        (Colour.RED, '"red"'),
        (Order(1), '{"number":1,"price":null}'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (datetime.datetime(2026, 3, 31, 14, 22, tzinfo=datetime.UTC), '"2026-03-31T14:22:00Z"'),
        (datetime.date(2026, 3, 31), '"2026-03-31"'),
    ],
)
def test_what_a_payload_may_be(payload: Any, text: str) -> None:
    assert encode_payload(payload).decode() == text


def test_pydantic_models_are_written_by_alias() -> None:
    from pydantic import BaseModel, Field, computed_field

    class Item(BaseModel):
        price: float = Field(alias="the-price")
        note: str | None = None

        @computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> float:
            return self.price * 2

    item = Item.model_validate({"the-price": 1.5})
    assert encode_payload({"items": [item]}) == b'{"items":[{"the-price":1.5,"note":null}]}'
    assert Item.model_validate_json(encode_payload(item)) == item
    with pytest.raises(PayloadError, match=r"nan|JSON compliant"):
        encode_payload(Item.model_validate({"the-price": float("nan")}))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    for payload in (
        number,
        [1, number],
        {"a": {"b": (number,)}},
        Order(1, number),
        {"a": None, "b": [Order(1, number)]},
    ):
        with pytest.raises(PayloadError, match=r"nan|inf|JSON compliant"):
            encode_payload(payload)
    if HAVE_MSGSPEC:
        with pytest.raises(PayloadError, match=r"payload\['a'\]\[1\]\['number'\]|payload\['a'\]\[1\]\['price'\] is"):
            encode_payload({"a": [0, Order(1, number)]})


def test_what_a_payload_may_not_be() -> None:
    itself: list[Any] = []
    itself.append(itself)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for payload, reason in (
        (Odd(), "Odd"),
        ([Odd()], "Odd"),
        ({"a": 1j}, "complex"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        (itself, "contains itself|Circular"),
        (deep, "nested too deep"),
        ({(1, 2): 3}, "tuple"),
        (b"abc", "payload is bytes, .* decode them"),
        ({"a": [1, bytearray(b"abc")]}, r"payload\['a'\]\[1\] is bytes"),
        ({"a": {3}}, r"payload\['a'\] is a set, .* make a list"),
        (({"b": frozenset()},), r"payload\[0\]\['b'\] is a set"),
        (Order(1, b"abc"), r"payload\['price'\] is bytes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(PayloadError, match=reason):
            encode_payload(payload)


# ---- reading, with Go's habits


def test_go_reads_keys_in_any_case_and_takes_the_last() -> None:
    found = good(b'{"V":1,"ID":"a","Ts":"t","CHANNEL":"c","id":"b","payload":1,"PayLoad":[2],"t\xc5\xbf":"u"}')
    assert (found.id, found.ts, found.channel, found.payload) == ("b", "u", "c", [2])
    assert good(b'{"v":1,"id":"a","Id":"b"}').id == "b"
    assert good(b'{"v":1,"id":"a","id":"b"}').id == "b"
    assert good(b'{"v":2,"v":1}').v == 1


def test_null_and_missing_leave_the_default() -> None:
    for line in (
        b'{"v":1}',
        b'{"v":1,"v":null,"id":null,"ts":null,"route":null,"payload":null,"origin":null,"payload_type":null}',
    ):
        assert good(line) == Envelope(v=1)
        raw = decode_line_raw(line)
        assert isinstance(raw, Envelope)
        assert bytes(raw.payload) == b"null"
    assert good(b'{"v":1,"id":"a","id":null}').id == "a"
    assert good(b'{"v":1,"route":["a",null]}').route == ("a", "")


def test_unknown_keys_are_passed_over() -> None:
    found = good(b'{"v":1,"id":"a","later":{"x":[1]},"payload":1.50}')
    assert (found.id, found.payload) == ("a", 1.5)
    raw = decode_line_raw(b'{"v":1,"later":1,"payload": {"n" : 1.50} }')
    assert isinstance(raw, Envelope)
    assert bytes(raw.payload) == b'{"n" : 1.50}'


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"v":1.0}', b'{"v":1e0}', b'{"v":"1"}', b'{"v":true}', b'{"v":[]}'),
        *(b'{"v":1,"id":5}', b'{"v":1,"ts":5}', b'{"v":1,"channel":[]}', b'{"v":1,"origin":{}}'),
        *(b'{"v":1,"payload_type":true}', b'{"v":1,"correlation_id":1}', b'{"v":1,"service_name":1}'),
        *(b'{"v":1,"route":"abc"}', b'{"v":1,"route":[1]}', b'{"v":1,"route":{"a":"b"}}', b'{"v":1,"ID":5}'),
        *(b"", b" ", b"null", b"[]", b"5", b'"x"', b"{", b"}", b'{"v":1', b'{"v":1}x', b'{"v":1}{"v":1}', b'{"v" 1}'),
        *(b'{"v":1,}', b"{,}", b"{v:1}", b"{'v':1}", b'{"v":1,"payload":NaN}', b'{"v":1,"payload":-Infinity}'),
        *(b'{"v":1,"payload":01}', b'{"v":1,"payload":"\t"}', b'{"v":1,"payload":"\\x"}', b'{"v":1,"payload":[1,]}'),
        *(b'\xef\xbb\xbf{"v":1}', b'\x00{"v":1}', b'{"v":1}\x00', b"\x00" * 200, b'{"v":1 "id":"a"}', b"\xff\xfe{\x00"),
        b'{"v":1,"payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_damaged(line: bytes) -> None:
    assert bad(line).fault is Fault.DAMAGED
    assert bad(line).envelope is None
    assert line_ts_ns(line) is None


@pytest.mark.parametrize(
    "line", [b"{}", b'{"v":2}', b'{"v":0}', b'{"v":null}', b'{"id":"a"}', b'{"v":2,"id":5,"ts":{}}', b'{"v":1,"v":2}']
)
def test_other_versions(line: bytes) -> None:
    found = bad(line)
    assert found.fault is Fault.OTHER_VERSION
    assert "v is" in found.reason


def test_blanks_around_tokens_are_fine() -> None:
    assert good(b' {\t"v" : 1 , "id" :\r"a" ,"payload": [ 1 ] } ').payload == [1]


def test_empty_and_equal_ids_are_given_as_they_are() -> None:
    """Case 76."""
    assert good(b'{"v":1,"id":""}').id == ""
    assert good(b'{"v":1,"id":"","payload":2}').payload == 2


def test_what_is_not_unicode_becomes_a_replacement_character() -> None:
    assert good(b'{"v":1,"origin":"a\xff\xe2\x82b","payload":"\xe2\x82"}').origin == "a\ufffd\ufffd\ufffdb"
    found = good(b'{"v":1,"id":"\\ud800","payload":["\\uDFFFx",{"\\ud83d\\ude00":"\\ud83d"}]}')
    assert found.id == "\ufffd"
    assert found.payload == ["\ufffdx", {"\U0001f600": "\ufffd"}]
    assert good(b'{"v":1,"later\\ud800":1,"payload":"\\ud83d\\ude00"}').payload == "\U0001f600"


def test_a_time_that_cannot_be_read_costs_nothing_but_itself() -> None:
    line = b'{"v":1,"id":"a","ts":"yesterday"}'
    assert good(line).ts == "yesterday"
    assert line_ts_ns(line) is None
    assert line_ts_ns(b'{"v":1,"ts":"1970-01-01T00:00:00.5Z","later":1}') == 500_000_000


WHOLE = b'{"v":1,"id":"b","ts":"2026-03-31T14:22:01Z","channel":"orders","payload":{"n":2}}'


@pytest.mark.parametrize(
    "torn",
    [
        b'{"v":1,"id":"a","ts":"20',
        b'{"v":1,"id":"',
        b'{"v":1,"payload":{"original":{"v":1,"id":"a"',
        b"\x00" * 50,
        b"{",
    ],
)
def test_a_whole_envelope_glued_to_a_torn_one_is_recovered(torn: bytes) -> None:
    """Case 5."""
    found = bad(torn + WHOLE)
    assert (found.fault, found.start) == (Fault.RECOVERED, len(torn))
    assert found.envelope == Envelope(v=1, id="b", ts="2026-03-31T14:22:01Z", channel="orders", payload={"n": 2})
    assert line_ts_ns(torn + WHOLE) == parse_ns("2026-03-31T14:22:01Z")


def test_a_dead_letter_glued_to_a_torn_line_is_recovered_and_not_its_original() -> None:
    _, letter = encode_dead_letter(
        "orders", WHOLE, 0, retries=5, last_error="no", subscriber="billing", max_message_bytes=LIMIT_BYTES
    )
    torn = b'{"v":1,"id":"a","ts'
    found = bad(torn + letter[:-1])
    assert found.start == len(torn)
    assert found.envelope is not None
    assert found.envelope.payload_type == DEAD_LETTER_TYPE


def test_what_looks_like_the_end_of_a_line_and_is_none() -> None:
    assert bad(b'x{"v":1,"id":"a"' * 1000).fault is Fault.DAMAGED
    assert bad(b'{"v":1,"id":"a","payload":[{"v":1,"id":"b"}]').fault is Fault.DAMAGED
    assert bad(b'{"v":1,"id":"a","payload":"{\\"v\\":1,\\"id\\":\\"b\\"}"').fault is Fault.DAMAGED


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_line_makes_it_raise(noise: bytes) -> None:
    for line in (noise, noise + WHOLE, b'{"v":1,"payload":' + noise + b"}", b'{"v":1,"id":"' + noise + b'"}'):
        for found in (decode_line(line), decode_line_raw(line)):
            assert isinstance(found, (Envelope, BadLine))


@given(json_values, st.permutations(["v", "id", "channel", "payload", "route", "zzz"]))
def test_the_slow_way_reads_what_the_fast_way_reads(value: Any, order: list[str]) -> None:
    members = {"v": 1, "id": "a", "channel": "ü", "payload": value, "route": ["a", "b"], "zzz": value}
    fast = json.dumps({key: members[key] for key in order if key != "zzz"}, ensure_ascii=False).encode()
    slow = json.dumps({key: members[key] for key in order}, ensure_ascii=True).encode()
    assert good(fast) == good(slow)


@given(json_values)
def test_scanning_keeps_each_value_s_own_text(value: Any) -> None:
    text = json.dumps({"a": value, "b": value}, indent=1, ensure_ascii=False)
    members = scan_object(text)
    assert [(key, member) for key, member, _ in members] == [("a", value), ("b", value)]
    assert [json.loads(own) for _, _, own in members] == [value, value]


def test_scanning_refuses_with_a_reason() -> None:
    for text in ("", "{", '{"a"', '{"a":', '{"a":1', "[]", '{"a":1}}', "{1:2}"):
        with pytest.raises(NotAnObject, match=r"."):
            scan_object(text)


# ---- dead letters


def dead_letter(line: bytes, **changes: Any) -> tuple[Envelope, bytes]:
    arguments: dict[str, Any] = {"retries": 5, "last_error": "no", "subscriber": "billing"}
    arguments |= {"max_message_bytes": LIMIT_BYTES} | changes
    message_id, letter = encode_dead_letter("orders", line, 1234, **arguments)
    assert letter.count(b"\n") == 1
    found = good(letter[:-1])
    assert found.id == message_id
    return found, letter


def test_a_dead_letter_holds_the_whole_original() -> None:
    line = b'{"v":1,"id":"a","origin":"far","later":[1.50],"payload":{"n":1}}'
    found, letter = dead_letter(line)
    assert (found.channel, found.origin, found.payload_type) == ("orders.dead-letter", "far", DEAD_LETTER_TYPE)
    assert list(found.payload) == ["original", "retries", "last_error", "failed_at", "subscriber"]
    assert b'"payload":{"original":' + line + b',"retries":5,"last_error":"no","failed_at":"2' in letter
    assert found.id != "a"
    assert parse_ns(found.payload["failed_at"]) is not None


def test_a_long_error_is_cut_between_characters() -> None:
    found, _ = dead_letter(WHOLE, last_error="x" + "é" * 20_000 + "\n")
    assert found.payload["last_error"] == "x" + "é" * 8191
    found, _ = dead_letter(WHOLE, last_error='"\ud800\n')
    assert found.payload["last_error"] == '"?\n'


def test_where_the_original_is_too_long_it_goes_without_payload() -> None:
    line = b'{"v":1,"id":"a","origin":"far","later":[1.50],"PAYLOAD":"' + b"x" * 3000 + b'"}'
    found, letter = dead_letter(line, max_message_bytes=3000)
    assert found.payload["original"] == {"v": 1, "id": "a", "origin": "far", "later": [1.5]}
    assert found.payload["original_offset"] == 1234
    assert b"[1.50]" in letter
    _, whole = dead_letter(line)
    assert dead_letter(line, max_message_bytes=len(whole))[0].payload["original"]["id"] == "a"
    assert "original_offset" not in dead_letter(line, max_message_bytes=len(whole))[0].payload
    assert "original_offset" in dead_letter(line, max_message_bytes=len(whole) - 1)[0].payload


def test_a_dead_letter_stays_below_the_limit_whatever_it_is_about() -> None:
    line = b'{"v":1,"id":"%b","payload":1}' % (b"i" * 5000)
    found, letter = dead_letter(line, max_message_bytes=1500, last_error="e" * 20_000)
    assert len(letter) <= 1500
    assert found.payload["original"] is None
    assert found.payload["original_offset"] == 1234
    assert found.payload["last_error"] == "e" * 256


def test_the_original_of_a_damaged_line() -> None:
    found, _ = dead_letter(b'{"v":1,"id":"a"' + WHOLE)
    assert found.payload["original"] == json.loads(WHOLE)
    found, letter = dead_letter(b'{"v":1,"payload":"\xff"}')
    assert found.payload["original"]["payload"] == "\ufffd"
    letter.decode()
    assert dead_letter(b"\x00\x00")[0].payload["original"] is None


# ---- messages


def test_a_message_shows_the_envelope() -> None:
    found = good(WHOLE)
    message = Message(found, found.payload, offset=77, attempt=2)
    assert (message.id, message.channel, message.payload, message.offset, message.attempt) == (
        *("b", "orders", {"n": 2}, 77, 2),
    )
    assert message.ts == datetime.datetime(2026, 3, 31, 14, 22, 1, tzinfo=datetime.UTC)
    assert (message.origin, message.payload_type, message.correlation_id, message.service_name) == ("", "", "", "")
    assert "orders" in repr(message)
    assert "offset=77" in repr(message)
    with pytest.raises(AttributeError):
        message.id = "c"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        message.other = "c"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ts", "moment"),
    [
        ("", YEAR_1),
        ("yesterday", YEAR_1),
        ("0001-01-01T00:00:00Z", YEAR_1),
        ("0001-01-01T00:00:00+14:00", YEAR_1),
        ("9999-12-31T23:59:59-14:00", YEAR_1),
        ("1969-12-31T23:59:59.9999999Z", datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, datetime.UTC)),
    ],
)
def test_the_time_of_a_message_never_fails(ts: str, moment: datetime.datetime) -> None:
    message = Message(Envelope(v=1, ts=ts), None)
    assert message.ts == moment
    assert message.ts_text == ts


# ---- times


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9))
def test_times_are_spelled_and_read_back(ns: int) -> None:
    assert parse_ns(format_ns(ns)) == ns
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=ns // 10**9)
    assert format_ns(ns)[:19] == moment.replace(tzinfo=None).isoformat()


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T02:00:01.5+02:00", 1_500_000_000),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1970-01-01T00:00:00.1234567890123Z", 123456789),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:60Z", 60 * 10**9),
        ("0001-01-01T00:00:00Z", -62_135_596_800 * 10**9),
        *((text, None) for text in ("", "now", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z")),
        *((text, None) for text in ("1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z", "1970-01-01T00:00:61Z")),
        *((text, None) for text in ("0000-01-01T00:00:00Z", "1970-02-30T00:00:00Z", "1970-01-01T00:00:00.Z")),
        *((text, None) for text in ("1970-01-01T00:00:00+24:00", "1970-01-01T00:00:00+1:00", "1970-01-01T00:00:00Z\n")),
        ("١970-01-01T00:00:00Z", None),
    ],
)
def test_times_as_they_may_come(text: str, ns: int | None) -> None:
    assert parse_ns(text) == ns


# ---- ids


def test_ids_are_version_7_and_ascend() -> None:
    for source in (ids.new_id, ids.Version7().new):
        made = [source() for _ in range(5000)]
        assert made == sorted(set(made))
        for text in made[::500]:
            assert str(uuid.UUID(text)) == text
            assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)


def test_ids_go_on_when_the_clock_stands_or_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ids.Version7()
    now_ms = iter([1000, 1000, 999, 0, 1001, -5])
    monkeypatch.setattr("keyop.messages.ids.time.time_ns", lambda: next(now_ms) * 1_000_000)
    made = [source.new() for _ in range(6)]
    assert made == sorted(set(made))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_makes_other_ids() -> None:
    own = ids.Version7()
    for source in (ids.new_id, own.new):
        source()
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, "\n".join(source()[14:] for _ in range(100)).encode())
            os._exit(0)
        os.wait()
        theirs = os.read(read_end, 65536).decode().split("\n")
        os.close(read_end)
        os.close(write_end)
        ours = [source()[14:] for _ in range(100)]
        assert len(theirs) == 100
        assert not set(ours) & set(theirs)


# ---- the Go program's files, and the standard library alone


@pytest.mark.parametrize(("channel", "count"), [("alerts", 8), ("alerts.dead-letter", 1), ("bulk", 1300)])
def test_the_go_fixture_is_read_completely(channel: str, count: int) -> None:
    reader = SegmentReader(FIXTURE / channel, 0)
    lines = []
    while batch := reader.read_batch(relist=True):
        lines += batch.lines
    reader.close()
    found = [good(line) for line in lines]
    assert len(found) == count
    for line, envelope in zip(lines, found, strict=True):
        assert Envelope(**json.loads(line)) == envelope
        assert (envelope.channel, envelope.origin) == (channel, "go-host")
        assert parse_ns(envelope.ts) == line_ts_ns(line)


@pytest.mark.skipif(not HAVE_MSGSPEC, reason="this is the run without it")
def test_all_of_this_holds_without_msgspec_and_uuid_utils() -> None:
    program = (
        "import sys; sys.modules['msgspec'] = sys.modules['uuid_utils'] = None\n"
        f"import pytest; sys.exit(pytest.main([{__file__!r}, '-q', '-p', 'no:cacheprovider']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout[-5000:]
