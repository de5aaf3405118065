"""Texts and frames of the wire protocol, good ones and others (cases 43, 52)."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.configuration.settings import FederationSettings
from keyop.federation.limits import Limits
from keyop.federation.wire import (
    FEATURES,
    MAX_REASON_BYTES,
    CloseCode,
    Hello,
    WireError,
    ack_text,
    client_hello,
    cut_reason,
    frame_of,
    hub_hello,
    read_ack,
    read_hello,
    spans,
)

MAX_NAMES = 4_096


def hello_of(**members: object) -> Hello:
    text = json.dumps({"instance_name": "n", "role": "client", "version": "1", **members})
    return read_hello(text, "client", FEATURES, MAX_NAMES)


# Handshakes.


def test_a_clients_handshake_is_that_of_the_go_program() -> None:
    assert (
        client_hello("go-client", ["alerts"], False, ())
        == '{"instance_name":"go-client","role":"client","version":"1","subscribe":["alerts"]}'
    )
    assert (
        client_hello("e", (), True, ["pipelined"])
        == '{"instance_name":"e","role":"client","version":"1","ephemeral":true,"features":["pipelined"]}'
    )


def test_a_hubs_handshake_is_that_of_the_go_program() -> None:
    assert hub_hello("go-hub", ()) == '{"instance_name":"go-hub","role":"hub","version":"1"}'


def test_a_handshake_comes_back_as_it_was_sent() -> None:
    text = client_hello('a "b" ü', ["x", "y.dead-letter"], True, FEATURES)
    assert read_hello(text, "client", FEATURES, MAX_NAMES) == Hello(
        'a "b" ü', ("x", "y.dead-letter"), True, frozenset(FEATURES)
    )


def test_unknown_keys_are_passed_over_and_features_count_where_both_name_them() -> None:
    hello = hello_of(last_id="from Go 0.10", whatever={"a": [1]}, features=["pipelined", "x-other", 7, None])
    assert hello.features == {"pipelined"}
    assert hello_of(features="pipelined").features == frozenset()
    assert hello_of(features={"pipelined": 1}).features == frozenset()


def test_names_that_lead_elsewhere_are_left_out_and_counted() -> None:
    names = ["ok", "../../x", "/etc", "", "ok", "x.dead-letter", "x.replay", ".hidden", 7, None, [[]], "n" * 5_000]
    hello = hello_of(subscribe=names)
    assert hello.subscribe == ("ok", "x.dead-letter")
    assert hello.refused_count == 9
    assert hello.refused[0] == "'../../x'"
    assert sum(map(len, hello.refused)) < 1_000


def test_a_name_that_comes_twice_is_asked_for_once() -> None:
    assert hello_of(subscribe=["b", "a", "b", "a"]).subscribe == ("b", "a")


def test_ephemeral_is_true_and_nothing_else() -> None:
    assert hello_of(ephemeral=True).ephemeral
    assert not hello_of(ephemeral=1).ephemeral
    assert not hello_of().ephemeral


@pytest.mark.parametrize("name", [None, 7, ["x"], {"a": 1}])
def test_the_instance_name_is_informative_only(name: object) -> None:
    assert hello_of(instance_name=name).instance_name == ""


def test_a_long_instance_name_is_cut() -> None:
    assert len(hello_of(instance_name="n" * 60_000).instance_name) == 64


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("null", "not an object: None"),
        ("[]", "not an object: a list of 0"),
        ("", "not JSON: ''"),
        ("{", "not JSON"),
        ("[" * 60_000, "handshake: "),
        ('{"a":' * 10_000, "handshake: "),
        ("\ud800", "not JSON"),
        ("7" * 60_000, "handshake: not JSON"),
        ("{}", 'version is None, not "1"'),
        ('{"version":"2","role":"client"}', "version is '2', not \"1\""),
        ('{"version":1,"role":"client"}', 'version is 1, not "1"'),
        ('{"version":"1"}', 'role is None, not "client"'),
        ('{"version":"1","role":"hub"}', "role is 'hub', not \"client\""),
        ('{"version":"1","role":"client","subscribe":"alerts"}', "subscribe is 'alerts', not a list"),
        ('{"version":"1","role":"client","subscribe":{"a":1}}', "subscribe is a dict of 1, not a list"),
    ],
)
def test_another_handshake_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        read_hello(text, "client", FEATURES, MAX_NAMES)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


def test_too_many_names_are_refused() -> None:
    with pytest.raises(WireError, match="names 10,000 channels, 4,096 are allowed"):
        hello_of(subscribe=["x"] * 10_000)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    for read in (lambda: read_hello(text, "client", FEATURES, MAX_NAMES), lambda: read_ack(text)):
        try:
            read()
        except WireError:
            pass


@given(
    st.dictionaries(
        st.sampled_from(["instance_name", "role", "version", "subscribe", "ephemeral", "features", "last_id"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.sampled_from(["1", "client", "hub"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=6,
        ),
    )
)
def test_no_object_does_more_than_be_refused(members: dict[str, object]) -> None:
    for text in (json.dumps(members), json.dumps({"role": "client", "version": "1", **members})):
        try:
            hello = read_hello(text, "client", FEATURES, MAX_NAMES)
        except WireError:
            pass
        else:
            assert all(name.strip("./") == name for name in hello.subscribe)


# Acknowledgements.


def test_an_acknowledgement_is_that_of_the_go_program() -> None:
    assert ack_text("01a2") == '{"last_id":"01a2"}'
    assert ack_text("") == '{"last_id":""}'
    assert read_ack(ack_text('ü"\\')) == 'ü"\\'


def test_an_acknowledgement_may_say_nothing() -> None:
    assert read_ack("{}") == read_ack('{"last_id":null,"x":1}') == ""
    assert read_ack('{"last_id":"\\ud800"}') == "\ufffd"


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"last_id":7}', '{"last_id":["x"]}', '"x"'])
def test_another_text_is_no_acknowledgement(text: str) -> None:
    with pytest.raises(WireError, match="acknowledgement: "):
        read_ack(text)


# Frames.


def test_a_frame_is_lengths_and_lines() -> None:
    assert frame_of([b"ab", b"", b"c"]) == b"\0\0\0\2ab\0\0\0\0\0\0\0\1c"
    assert frame_of([]) == b""


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_frame_comes_apart_as_it_was_put_together(lines: list[bytes]) -> None:
    frame = frame_of(lines)
    assert [frame[start:end] for start, end in spans(frame)] == lines


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\0", "truncated frame: 1 bytes at 0 are too few for a length"),
        (b"\0\0\0\1a\0\0", "truncated frame: 2 bytes at 5 are too few for a length"),
        (b"\0\0\0\2a", "truncated frame: a record of 2 bytes at 4, the frame has 5"),
        (struct.pack(">I", 0xFFFFFFFF), "truncated frame: a record of 4,294,967,295 bytes at 4, the frame has 4"),
    ],
)
def test_a_frame_that_ends_too_early_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        list(spans(frame))
    assert str(caught.value) == reason


@given(st.binary(max_size=40))
def test_no_bytes_do_more_than_be_refused(frame: bytes) -> None:
    try:
        covered = [end - start + 4 for start, end in spans(frame)]
    except WireError:
        return
    assert sum(covered) == len(frame)


# Limits.


def test_the_limits_are_those_of_the_configuration() -> None:
    assert Limits.of(FederationSettings()) == Limits()
    settings = FederationSettings(
        max_batch_bytes=1_000, max_message_records=7, handshake_timeout_ms=1_500, window_batches=2, ping_interval_ms=50
    )
    limits = Limits.of(settings)
    assert (limits.record_bytes, limits.max_records, limits.window_batches) == (1_000, 7, 2)
    assert (limits.handshake_timeout_s, limits.ping_interval_s) == (1.5, 0.05)


def test_a_batch_of_one_record_fits_into_a_message_whatever_the_configuration_says() -> None:
    limits = Limits.of(FederationSettings(max_batch_bytes=64 * 1_048_576, max_message_bytes=5))
    assert limits.record_bytes < 10_485_760 < limits.max_message_bytes


# Reasons.


@given(st.text(max_size=300))
def test_a_reason_fits_into_a_close_and_is_one_line(text: str) -> None:
    reason = cut_reason(text)
    assert len(reason.encode()) <= MAX_REASON_BYTES
    assert reason.isprintable()


def test_a_reason_that_fits_stays() -> None:
    assert cut_reason("not in allowlist") == "not in allowlist"
    assert cut_reason("line\nline\x1b[31m") == "line?line?[31m"
    assert cut_reason("ü" * 100) == "ü" * 61


def test_close_codes_are_those_of_websocket_and_the_protocols_own() -> None:
    assert {code.name: int(code) for code in CloseCode if code >= 4_000} == {"NOT_ALLOWED": 4403, "REPLACED": 4409}
