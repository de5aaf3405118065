"""Whose a message is: of all parts exactly one takes it, whatever the key says, and whatever it raises."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.messages.envelope import Envelope, EnvelopeEncoder, decode_line
from keyop.messages.ids import new_id
from keyop.messages.message import Message
from keyop.protocol.entry import MAX_PARTS
from keyop.subscriber.share import Key, Share

COUNTS = st.integers(2, MAX_PARTS)


def line_of(payload: Any = None) -> bytes:
    return EnvelopeEncoder("here").encode("c", json.dumps(payload).encode(), "t")[1].rstrip(b"\n")


def message_of(line: bytes) -> Message[Any]:
    envelope = decode_line(line)
    assert isinstance(envelope, Envelope)
    return Message(envelope, envelope.payload)


def takers(line: bytes, parts: int, key: Key | None) -> list[int]:
    """The parts that handle a message, as a subscription asks."""
    found = []
    for part in range(parts):
        share = Share(part, parts, key)
        if share.leaves(line):
            continue
        message = message_of(line)
        try:
            mine = share.owns(message, line)
        except Exception:
            mine = share.owns_by_id(message, line)
        if mine:
            found.append(part)
    return found


@given(st.text(), COUNTS)
def test_the_key_decides(key: str, parts: int) -> None:
    line = line_of({"key": key})
    wanted = crc32(key.encode("utf-8", "surrogatepass")) % parts
    assert takers(line, parts, lambda message: message.payload["key"]) == [wanted]


def test_a_key_with_a_lone_surrogate_is_a_key() -> None:
    """JSON may hold one, and a key may be put together of anything."""
    assert takers(line_of(), 7, lambda _message: "\ud800") == [crc32(b"\xed\xa0\x80") % 7]


@given(COUNTS)
def test_without_a_key_the_id_decides(parts: int) -> None:
    line = line_of()
    wanted = [crc32(message_of(line).id.encode()) % parts]
    assert takers(line, parts, None) == wanted
    assert takers(line, parts, lambda _message: None) == wanted


def fail(_message: Message[Any]) -> str:
    raise RuntimeError("no key")


@pytest.mark.parametrize("key", [fail, lambda _message: 7, lambda message: message.payload["there"]["is"]["none"]])
@given(parts=COUNTS)
def test_where_a_key_cannot_be_had_the_id_decides(key: Key, parts: int) -> None:
    line = line_of({})
    assert takers(line, parts, key) == takers(line, parts, None)


@pytest.mark.parametrize("parts", [2, 3, 5, 64])
@pytest.mark.parametrize(
    "head",
    [
        '{{"v":1,"id":"{one}","id":"{other}",',
        '{{"id":"{one}","v":1,',
        '{{"v":1,"ID":"{one}",',
        '{{"v":1,"id":"{one}","Id":"{other}",',
        '{{"v":1,"id":"an id of {one}",',
    ],
)
def test_a_line_that_others_wrote_is_exactly_one_parts(head: str, parts: int) -> None:
    """The id that is seen at a glance need not be the one that counts."""
    text = head.format(one=new_id(), other=new_id()) + '"ts":"2026-03-31T14:22:01Z","channel":"c","payload":1}'
    for key in (None, fail, lambda _message: None):
        assert len(takers(text.encode(), parts, key)) == 1


def test_only_what_is_needed_is_decoded() -> None:
    line = line_of({"large": "x" * 1000})
    left = [Share(part, 8, None).leaves(line) for part in range(8)]
    assert left.count(False) == 1
    assert not any(Share(part, 8, fail).leaves(line) for part in range(8))


def test_what_a_failing_disk_has_lost_is_nobodys_at_a_glance() -> None:
    """It reads as zeros, and is written again: part of an id would be another id."""
    line = line_of()
    assert line.startswith(b'{"v":1,"id":"')
    torn = line[:30] + bytes(6) + line[36:]
    assert not any(Share(part, 8, None).leaves(torn) for part in range(8))
