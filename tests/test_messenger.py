"""The messenger as its user sees it: every method, every error, every argument, on a real data directory."""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, freeze, writer_pid
from conftest import leave
from inbox import Inbox
from pydantic import BaseModel
from typing_extensions import TypedDict

import keyop
from keyop import Message, Messenger
from keyop.configuration.lookup import settings_for
from keyop.errors import (
    AtomicError,
    ChannelNameError,
    ClosedError,
    ConfigError,
    DataDirectoryError,
    KeyopError,
    MessageTooLarge,
    PayloadError,
    PayloadTypeError,
    PublishRefused,
    PublishTimeout,
    ReservedChannelError,
    SubscriberBusy,
    SubscriberIdError,
)

DEADLINE_S = 20.0
PLAIN = "com.example.plain.v1"
LIMIT = 10_485_760


class Alert(BaseModel):
    message: str


@dataclass
class Reading:
    sensor: str
    value: float


class Door(TypedDict):
    open: bool


def lines(data_dir: Path, channel: str) -> list[dict[str, Any]]:
    """What stands in the segments of a channel."""
    paths = sorted((data_dir / "channels" / channel).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("messenger") / "data"
    yield path
    leave(path)


@pytest.fixture
def m(shared_dir: Path) -> Iterator[Messenger]:
    """A messenger on the directory that these tests share; each uses channels of its own."""
    with Messenger(shared_dir, name="test-host") as messenger:
        yield messenger


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """A channel of the test's own."""
    return f"c{abs(hash(request.node.name)) % 10**9}"


# ---- the example


def test_the_first_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: queue.Queue[tuple[str, str, str, str]] = queue.Queue()
    with Messenger("./data") as m:
        m.register_payload_type("com.example.alert.v1", Alert)

        @m.subscribe("alerts", "notifier")
        def on_alert(msg: Message[Alert]) -> None:
            seen.put((msg.payload.message, msg.id, msg.origin, msg.service_name))

        published = m.publish("alerts", Alert(message="system problem!"), service_name="monitor")
        text, id, origin, service = seen.get(timeout=DEADLINE_S)
        assert (text, id, service) == ("system problem!", published, "monitor")
        assert origin == m.instance_name == os.uname().nodename
        assert on_alert is not None
    data_dir = tmp_path / "data"
    assert len(lines(data_dir, "alerts")) == 1
    size = (data_dir / "channels/alerts/00000000000000000000.jsonl").stat().st_size
    assert int((data_dir / "subscribers/alerts/notifier.offset").read_bytes()[:20]) == size
    leave(data_dir)


def test_a_relative_directory_stays_the_same_when_the_process_changes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Messenger("data") as m:
        (tmp_path / "elsewhere").mkdir()
        os.chdir("elsewhere")
        m.publish("c", 1, payload_type=PLAIN)
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest")
        assert inbox.next().payload == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] in (["data", "elsewhere"], ["elsewhere", "data"])
    leave(tmp_path / "data")


# ---- what a message is


def test_a_message_carries_all_that_was_said(m: Messenger, channel: str, shared_dir: Path) -> None:
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    before = datetime.now(UTC)
    first = m.publish(channel, {"a": [1, None]}, payload_type=PLAIN, correlation_id="order-7", service_name="shop")
    second = m.publish(channel, "x", payload_type=PLAIN)
    one, two = inbox.next(), inbox.next()
    assert (one.id, one.channel, one.origin, one.payload_type) == (first, channel, "test-host", PLAIN)
    assert (one.correlation_id, one.service_name, one.payload, one.attempt) == ("order-7", "shop", {"a": [1, None]}, 1)
    assert (two.id, two.correlation_id, two.service_name) == (second, "", "")
    assert one.ts.tzinfo is UTC
    assert before - timedelta(milliseconds=1) <= one.ts <= two.ts <= datetime.now(UTC)
    assert (one.offset, two.offset) == (0, len(json.dumps(lines(shared_dir, channel)[0], separators=(",", ":"))) + 1)
    assert channel in repr(one)
    with pytest.raises(AttributeError):
        one.payload = 5  # type: ignore[misc]


def test_every_json_value_arrives_as_it_was_published(m: Messenger, channel: str) -> None:
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        2**53,
        "",
        "ä\n\r\u2028\u0000",
        [],
        [1, [2]],
        {},
        {"": 1, "é": {"x": []}},
    ]
    for value in values:
        m.publish(channel, value, payload_type=PLAIN)
    assert inbox.take(len(values)) == values


# ---- payload types


def test_registered_types_arrive_as_their_class(m: Messenger, channel: str) -> None:
    m.register_payload_type("alert", Alert)
    m.register_payload_type("reading", Reading)
    m.register_payload_type("door", Door)
    m.register_payload_type("numbers", list[int])
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    m.publish(channel, Alert(message="a"))
    m.publish(channel, Reading("s", 1.5))
    m.publish(channel, {"open": True}, payload_type="door")
    m.publish(channel, [1, 2], payload_type="numbers")
    m.publish(channel, {"message": "as a dict"}, payload_type="alert")
    m.publish(channel, {"free": 1}, payload_type="com.example.unknown")
    got = [inbox.next() for _ in range(6)]
    assert [message.payload for message in got] == [
        Alert(message="a"), Reading("s", 1.5), {"open": True}, [1, 2], Alert(message="as a dict"), {"free": 1},
    ]  # fmt: skip
    assert [message.payload_type for message in got] == [
        "alert", "reading", "door", "numbers", "alert", "com.example.unknown",
    ]  # fmt: skip


def test_a_payload_that_does_not_validate_is_a_dead_letter_with_the_reason(
    m: Messenger, channel: str, shared_dir: Path
) -> None:
    m.register_payload_type("alert", Alert)
    inbox, dead = Inbox(), Inbox()
    m.subscribe(channel, "s", inbox)
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    bad = [{"message": 5}, {}, [1], "s", 5, None]
    ids = [m.publish(channel, payload, payload_type="alert") for payload in bad]
    m.publish(channel, Alert(message="good"))
    assert inbox.next().payload == Alert(message="good")
    letters = [dead.next() for _ in bad]
    assert [letter.payload["original"]["id"] for letter in letters] == ids
    assert [letter.payload["original"]["payload"] for letter in letters] == bad
    assert all("alert" in letter.payload["last_error"] for letter in letters)
    assert "valid string" in letters[0].payload["last_error"]
    assert {letter.payload_type for letter in letters} == {"com.keyop.messenger.DeadLetterPayload"}
    assert inbox.messages.empty()
    assert m.stats().subscribers[0].dead_lettered == len(bad)


def test_an_unregistered_type_is_plain_or_with_require_type_a_dead_letter(m: Messenger, channel: str) -> None:
    m.register_payload_type("alert", Alert)
    plain, strict, dead = Inbox(), Inbox(), Inbox()
    m.subscribe(channel, "plain", plain)
    m.subscribe(channel, "strict", strict, require_type=True)
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    for payload in ([1], "s", 5, None, {}):
        m.publish(channel, payload, payload_type="other")
    m.publish(channel, Alert(message="known"))
    assert plain.take(6) == [[1], "s", 5, None, {}, Alert(message="known")]
    assert strict.next().payload == Alert(message="known")
    letters = [dead.next().payload for _ in range(5)]
    assert {letter["subscriber"] for letter in letters} == {"strict"}
    assert all("'other' is not registered" in letter["last_error"] for letter in letters)


def test_an_undecodable_payload_in_a_dead_letter_channel_makes_no_further_one(
    m: Messenger, channel: str, shared_dir: Path
) -> None:
    m.register_payload_type("alert", Alert)
    m.register_payload_type("com.keyop.messenger.DeadLetterPayload", Alert)
    m.subscribe(channel, "s", Inbox())
    m.subscribe(f"{channel}.dead-letter", "undertaker", Inbox())
    m.publish(channel, 5, payload_type="alert")
    eventually(lambda: next(one for one in m.stats().subscribers if one.id == "undertaker").failed)
    eventually(lambda: all(one.lag_bytes == 0 for one in m.stats().subscribers))
    assert not (shared_dir / "channels" / f"{channel}.dead-letter.dead-letter").exists()


def test_registering_what_is_no_type_or_twice_is_an_error(m: Messenger) -> None:
    m.register_payload_type("alert", Alert)
    with pytest.raises(PayloadTypeError, match="'alert' is registered already"):
        m.register_payload_type("alert", Reading)
    with pytest.raises(PayloadTypeError, match="name is a text"):
        m.register_payload_type("", Alert)
    with pytest.raises(PayloadTypeError, match="name is a text"):
        m.register_payload_type(5, Alert)  # type: ignore[arg-type]
    with pytest.raises(PayloadTypeError, match="needs a class"):
        m.register_payload_type("none", None)

    class Opaque:
        pass

    with pytest.raises(PayloadTypeError, match="cannot be validated"):
        m.register_payload_type("opaque", Opaque)


# ---- what publish refuses, without a trace


def names_of(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "channels").iterdir()} | {
        path.name for path in (data_dir / "subscribers").iterdir()
    }


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../x", "/etc", "a:b", "ä", "a b", "a\n", "a\x00", "c" * 201, "c" * 300, 5, None],
)
def test_a_bad_channel_name_creates_nothing(m: Messenger, shared_dir: Path, name: Any) -> None:
    before = names_of(shared_dir)
    with pytest.raises(ChannelNameError, match="not a channel name"):
        m.publish(name, 1, payload_type=PLAIN)
    with pytest.raises(ChannelNameError):
        m.publish_batch(name, [1], payload_type=PLAIN)
    with pytest.raises(ChannelNameError):
        m.publish_batch(name, [], payload_type=PLAIN)
    with pytest.raises(ChannelNameError):
        m.subscribe(name, "s", Inbox())
    with m.atomic() as tx, pytest.raises(ChannelNameError):
        tx.publish(name, 1, payload_type=PLAIN)
    assert names_of(shared_dir) == before


@pytest.mark.parametrize("name", ["x.dead-letter", "a.b.dead-letter", "x.dead-letter.dead-letter", "x.replay"])
def test_a_reserved_channel_takes_no_publish(m: Messenger, shared_dir: Path, name: str) -> None:
    before = names_of(shared_dir)
    with pytest.raises(ReservedChannelError, match="written by keyop alone"):
        m.publish(name, 1, payload_type=PLAIN)
    assert names_of(shared_dir) == before


def test_a_reserved_ending_alone_is_no_name(m: Messenger) -> None:
    with pytest.raises(ChannelNameError):
        m.publish(".dead-letter", 1, payload_type=PLAIN)


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "../x", "fed-x", "fedout-x", "a:b", "ä", "i" * 300, 7, None])
def test_a_bad_subscriber_id_creates_nothing(m: Messenger, shared_dir: Path, id: Any) -> None:
    before = names_of(shared_dir)
    with pytest.raises(SubscriberIdError, match="not a subscriber id"):
        m.subscribe("fine", id, Inbox())
    assert names_of(shared_dir) == before


def test_the_longest_names_work_all_the_way_to_the_dead_letters(m: Messenger, shared_dir: Path) -> None:
    channel, id = "c" * 200, "i" * 200
    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", id, dead)

    @m.subscribe(channel, id, max_retries=0)
    def fail(_: Message[Any]) -> None:
        raise ValueError("no")

    m.publish(channel, 1, payload_type=PLAIN)
    assert dead.next().payload["subscriber"] == id
    m.unsubscribe(channel, id)


def _id_of(value: object) -> str:
    """The same in each process that runs tests: no addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class Opaque:
    pass


@pytest.mark.parametrize(
    "payload",
    [math.nan, math.inf, -math.inf, [1, {"a": math.nan}], Opaque(), {"a": Opaque()}, {1j: 2}, "\ud800", lambda: 1],
    ids=_id_of,
)
def test_what_is_not_json_is_not_published(m: Messenger, shared_dir: Path, payload: Any) -> None:
    with pytest.raises(PayloadError):
        m.publish("not-json", payload, payload_type=PLAIN)
    with pytest.raises(PayloadError):
        m.publish_batch("not-json", [1, payload], payload_type=PLAIN)
    assert not (shared_dir / "channels/not-json").exists()


def test_nan_inside_a_registered_class_is_not_published(m: Messenger, channel: str, shared_dir: Path) -> None:
    m.register_payload_type("reading", Reading)
    m.register_payload_type("alert", Alert)
    with pytest.raises(PayloadError):
        m.publish(channel, Reading("s", math.nan))
    assert not (shared_dir / "channels" / channel).exists()
    m.publish(channel, Alert(message="NaN and Infinity are words"))


def test_a_payload_that_contains_itself_is_not_published(m: Messenger) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(PayloadError, match="itself"):
        m.publish("not-json", circle, payload_type=PLAIN)


def test_a_payload_without_a_type_is_refused_with_the_way_out(m: Messenger) -> None:
    with pytest.raises(PayloadTypeError, match="payload_type="):
        m.publish("untyped", {"a": 1})
    with pytest.raises(PayloadTypeError, match="payload_type is '': name a type"):
        m.publish("untyped", {"a": 1}, payload_type="")
    m.register_payload_type("reading", Reading)
    with pytest.raises(PayloadTypeError, match="Alert"):
        m.publish("untyped", Alert(message="x"))
    with pytest.raises(PayloadTypeError, match="payload_type is ''"):
        m.publish("untyped", Reading("s", 1.0), payload_type="")


@pytest.mark.parametrize("argument", ["payload_type", "correlation_id", "service_name"])
@pytest.mark.parametrize("value", [5, b"x", "\udc80"])
def test_an_argument_that_is_no_text_is_refused(m: Messenger, shared_dir: Path, argument: str, value: Any) -> None:
    with pytest.raises(PayloadError, match=argument):
        m.publish("no-text", 1, **{"payload_type": PLAIN, argument: value})
    assert not (shared_dir / "channels/no-text").exists()


def test_the_largest_message_and_one_byte_more(m: Messenger, channel: str, shared_dir: Path) -> None:
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    m.publish(channel, "", payload_type=PLAIN)
    path = shared_dir / "channels" / channel / "00000000000000000000.jsonl"
    room = LIMIT - path.stat().st_size
    m.publish(channel, "x" * room, payload_type=PLAIN)
    assert path.stat().st_size == LIMIT - room + LIMIT
    with pytest.raises(MessageTooLarge, match=f"{LIMIT + 1} bytes, the limit .* is {LIMIT}"):
        m.publish(channel, "x" * (room + 1), payload_type=PLAIN)
    assert inbox.next().payload == ""
    assert inbox.next().payload == "x" * room
    m.publish(channel, "after", payload_type=PLAIN)
    assert inbox.next().payload == "after"


def test_a_channel_that_is_a_file_is_refused_and_others_go_on(m: Messenger, channel: str, shared_dir: Path) -> None:
    (shared_dir / "channels" / channel).write_text("mine")
    for _ in range(2):
        with pytest.raises(PublishRefused, match=f"channels/{channel} is not a directory; move it away"):
            m.publish(channel, 1, payload_type=PLAIN)
    with pytest.raises(KeyopError, match="not a directory"):
        m.subscribe(channel, "s", Inbox())

    def publish_both() -> None:
        with m.atomic() as tx:
            tx.publish(f"{channel}-other", 1, payload_type=PLAIN)
            tx.publish(channel, 1, payload_type=PLAIN)

    with pytest.raises(PublishRefused):
        publish_both()
    assert lines(shared_dir, f"{channel}-other") == []
    assert (shared_dir / "channels" / channel).read_text() == "mine"
    (shared_dir / "channels" / channel).unlink()
    m.publish(channel, 1, payload_type=PLAIN)
    assert len(lines(shared_dir, channel)) == 1


def test_a_refused_large_message_leaves_no_spill_file(m: Messenger, channel: str, shared_dir: Path) -> None:
    (shared_dir / "channels" / channel).write_text("mine")
    before = set((shared_dir / "journal/spill").iterdir())
    with pytest.raises(PublishRefused):
        m.publish(channel, "x" * 500_000, payload_type=PLAIN)
    assert set((shared_dir / "journal/spill").iterdir()) <= before
    (shared_dir / "channels" / channel).unlink()


# ---- batches


def test_a_batch_is_in_order_and_next_to_each_other(m: Messenger, channel: str, shared_dir: Path) -> None:
    ids = m.publish_batch(channel, (number for number in range(100)), payload_type=PLAIN, correlation_id="x")
    found = lines(shared_dir, channel)
    assert [line["id"] for line in found] == ids
    assert [line["payload"] for line in found] == list(range(100))
    assert {line["correlation_id"] for line in found} == {"x"}
    assert m.publish_batch(channel, [], payload_type=PLAIN) == []


def test_a_batch_with_one_that_cannot_be_published_publishes_none(m: Messenger, channel: str, shared_dir: Path) -> None:
    with pytest.raises(PayloadError):
        m.publish_batch(channel, [1, 2, Opaque()], payload_type=PLAIN)
    with pytest.raises(MessageTooLarge):
        m.publish_batch(channel, [1, "x" * LIMIT], payload_type=PLAIN)
    assert not (shared_dir / "channels" / channel).exists()


def test_megabytes_in_one_message_and_in_one_batch(m: Messenger, channel: str, shared_dir: Path) -> None:
    """Through spill files, which are gone once the journal is free."""
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    m.publish(channel, "m" * 5_000_000, payload_type=PLAIN)
    ids = m.publish_batch(channel, ["b" * 1_000_000] * 40, payload_type=PLAIN)
    assert len(inbox.next().payload) == 5_000_000
    assert [inbox.next().id for _ in ids] == ids
    with pytest.raises(MessageTooLarge, match="over the limit of 67108864; split it"):
        m.publish_batch(channel, ["b" * 1_000_000] * 68, payload_type=PLAIN)
    m.publish(channel, "after", payload_type=PLAIN)
    assert inbox.next().payload == "after"


# ---- atomic


def test_an_atomic_block_publishes_all_at_its_end(m: Messenger, channel: str, shared_dir: Path) -> None:
    others = [f"{channel}-{number}" for number in range(3)]
    with m.atomic() as tx:
        ids = [tx.publish(other, number, payload_type=PLAIN) for number, other in enumerate(others)]
        ids += [m.publish(others[0], "by the messenger", payload_type=PLAIN)]
        ids += m.publish_batch(others[1], ["by", "batch"], payload_type=PLAIN)
        assert not any((shared_dir / "channels" / other).exists() for other in others)
    found = {line["id"] for other in others for line in lines(shared_dir, other)}
    assert found == set(ids)
    with m.atomic():
        pass


def test_an_exception_in_an_atomic_block_publishes_nothing(m: Messenger, channel: str, shared_dir: Path) -> None:
    def fail() -> None:
        with m.atomic() as tx:
            tx.publish(channel, 1, payload_type=PLAIN)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()
    m.publish(f"{channel}-next", 1, payload_type=PLAIN)
    assert not (shared_dir / "channels" / channel).exists()


def test_a_fault_that_is_caught_in_the_block_leaves_the_rest(m: Messenger, channel: str, shared_dir: Path) -> None:
    with m.atomic() as tx:
        tx.publish(channel, 1, payload_type=PLAIN)
        with pytest.raises(PayloadError):
            tx.publish(channel, Opaque(), payload_type=PLAIN)
    assert [line["payload"] for line in lines(shared_dir, channel)] == [1]


def test_atomic_blocks_do_not_nest(m: Messenger, channel: str, shared_dir: Path) -> None:
    with m.atomic() as tx:
        tx.publish(channel, 1, payload_type=PLAIN)
        with pytest.raises(AtomicError, match="do not nest"), m.atomic():
            pass
    assert len(lines(shared_dir, channel)) == 1


def test_a_transaction_takes_nothing_after_its_end(m: Messenger, channel: str, shared_dir: Path) -> None:
    with m.atomic() as tx:
        pass
    with pytest.raises(AtomicError):
        tx.publish(channel, 1, payload_type=PLAIN)
    assert not (shared_dir / "channels" / channel).exists()


def test_another_thread_is_not_in_the_block(m: Messenger, channel: str, shared_dir: Path) -> None:
    def fail_around(other: threading.Thread) -> None:
        with m.atomic() as tx:
            tx.publish(channel, "inside", payload_type=PLAIN)
            other.start()
            other.join()
            raise LookupError

    with pytest.raises(LookupError):
        fail_around(threading.Thread(target=m.publish, args=(channel, "outside"), kwargs={"payload_type": PLAIN}))
    assert [line["payload"] for line in lines(shared_dir, channel)] == ["outside"]


def test_another_messenger_does_not_publish_into_the_block(m: Messenger, channel: str, shared_dir: Path) -> None:
    with Messenger(shared_dir) as other, m.atomic() as tx:
        tx.publish(channel, 1, payload_type=PLAIN)
        with pytest.raises(AtomicError):
            other.publish(channel, 2, payload_type=PLAIN)
    assert [line["payload"] for line in lines(shared_dir, channel)] == [1]


# ---- context


def test_a_context_names_correlation_and_service(m: Messenger, channel: str, shared_dir: Path) -> None:
    with keyop.context(correlation_id="c1", service_name="s1"):
        m.publish(channel, 1, payload_type=PLAIN)
        with keyop.context(service_name="s2"):
            m.publish(channel, 2, payload_type=PLAIN)
            m.publish(channel, 3, payload_type=PLAIN, correlation_id="c3", service_name="")
        m.publish_batch(channel, [4], payload_type=PLAIN)
        with m.atomic() as tx:
            tx.publish(channel, 5, payload_type=PLAIN)
    m.publish(channel, 6, payload_type=PLAIN)
    found = [(line.get("correlation_id", ""), line.get("service_name", "")) for line in lines(shared_dir, channel)]
    assert found == [("c1", "s1"), ("c1", "s2"), ("c3", ""), ("c1", "s1"), ("c1", "s1"), ("", "")]


def test_a_publish_inside_a_handler_inherits_what_it_handles(m: Messenger, channel: str) -> None:
    inbox = Inbox()
    m.subscribe(f"{channel}-out", "s", inbox)

    @m.subscribe(channel, "s")
    def relay(message: Message[Any]) -> None:
        m.publish(f"{channel}-out", message.payload, payload_type=PLAIN)

    @m.subscribe(channel, "async")
    async def relay_async(message: Message[Any]) -> None:
        m.publish(f"{channel}-out", message.payload, payload_type=PLAIN)

    first = m.publish(channel, 1, payload_type=PLAIN)
    m.publish(channel, 2, payload_type=PLAIN, correlation_id="given")
    got = [inbox.next() for _ in range(4)]
    assert sorted((message.payload, message.correlation_id) for message in got) == [
        (1, first), (1, first), (2, "given"), (2, "given"),
    ]  # fmt: skip


# ---- subscribing


def test_a_handler_is_given_by_call_or_as_a_decorator(m: Messenger, channel: str) -> None:
    inbox = Inbox()
    assert m.subscribe(channel, "call", inbox) is inbox

    @m.subscribe(channel, "decorator")
    def handler(message: Message[Any]) -> None:
        inbox(message)

    assert handler.__name__ == "handler"
    m.publish(channel, 1, payload_type=PLAIN)
    assert inbox.take(2) == [1, 1]


def test_what_cannot_be_called_is_no_handler(m: Messenger, channel: str, shared_dir: Path) -> None:
    with pytest.raises(TypeError, match="a handler is a function"):
        m.subscribe(channel, "s", 5)  # type: ignore[call-overload]
    assert not (shared_dir / "channels" / channel).exists()


@pytest.mark.parametrize(
    "options",
    [
        {"start": "sometimes"},
        {"start": -1},
        {"start": None},
        {"start": 1.5},
        {"start": 2**64},
        {"max_retries": -1},
        {"retry_backoff": (0, 1)},
        {"retry_backoff": (2, 1)},
        {"max_age": -1},
    ],
    ids=repr,
)
def test_an_option_that_makes_no_sense_is_a_value_error(
    m: Messenger, channel: str, shared_dir: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).replace("start", "start|offset")):
        m.subscribe(channel, "s", Inbox(), **options)
    assert not (shared_dir / "channels" / channel).exists()


def test_a_start_at_which_no_message_begins_is_told(
    m: Messenger, channel: str, shared_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    m.publish_batch(channel, [1, 2], payload_type=PLAIN)
    end = sum(path.stat().st_size for path in (shared_dir / "channels" / channel).glob("*.jsonl"))
    for id, start, begins in (("good", end // 2, None), ("zero", 0, None), ("inside", 5, 0), ("beyond", 10 * end, end)):
        caplog.clear()
        m.subscribe(channel, id, Inbox(), start=start)
        said = [record.getMessage() for record in caplog.records if "no place where a message begins" in record.message]
        assert said == (
            []
            if begins is None
            else [f"{channel}/{id}: start={start} is no place where a message begins, so it begins at {begins}"]
        )
    caplog.clear()
    m.drain(5)
    m.end_subscriptions()
    m.subscribe(channel, "beyond", Inbox(), start=20 * end)  # it goes on where it stood
    assert "no place" not in caplog.text


def test_one_id_twice_in_one_messenger_or_two_is_busy(m: Messenger, channel: str, shared_dir: Path) -> None:
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    with pytest.raises(SubscriberBusy, match="this messenger handles"):
        m.subscribe(channel, "s", inbox)
    with Messenger(shared_dir) as other:
        with pytest.raises(SubscriberBusy, match=rf"pid {os.getpid()}.*choose another id"):
            other.subscribe(channel, "s", inbox)
        other.subscribe(channel, "t", inbox)
        m.publish(channel, 1, payload_type=PLAIN)
        assert inbox.take(2) == [1, 1]


def test_unsubscribe_forgets_and_a_new_start_is_at_the_end(m: Messenger, channel: str, shared_dir: Path) -> None:
    inbox = Inbox()
    m.subscribe(channel, "s", inbox)
    m.publish(channel, 1, payload_type=PLAIN)
    assert inbox.next().payload == 1
    m.unsubscribe(channel, "s")
    assert not (shared_dir / "subscribers" / channel / "s.offset").exists()
    m.publish(channel, 2, payload_type=PLAIN)
    m.subscribe(channel, "s", inbox)
    m.publish(channel, 3, payload_type=PLAIN)
    assert inbox.next().payload == 3
    with pytest.raises(KeyError):
        m.unsubscribe(channel, "never")


def test_unsubscribe_from_inside_the_handler(m: Messenger, channel: str) -> None:
    """The handler's subscription ends with it, and what takes its slot is not touched by the old thread."""
    inbox, after = Inbox(), Inbox()
    left = threading.Event()

    @m.subscribe(channel, "s")
    def once(message: Message[Any]) -> None:
        m.unsubscribe(channel, "s")
        m.subscribe(f"{channel}-next", "t", after)
        m.publish(f"{channel}-next", "a", payload_type=PLAIN)
        inbox(message)

    thread = next(one for one in threading.enumerate() if one.name == f"keyop-{channel}-s")
    m.publish_batch(channel, range(2000), payload_type=PLAIN)
    assert inbox.next().payload == 0
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert not left.is_set()
    assert after.next().payload == "a"
    m.publish(f"{channel}-next", "b", payload_type=PLAIN)
    assert after.next().payload == "b"
    assert inbox.messages.empty()
    (one,) = [one for one in m.stats().subscribers if one.channel == f"{channel}-next"]
    assert one.handled <= 2
    offset_file = Path(m._settings.storage.data_dir) / "subscribers" / f"{channel}-next" / "t.offset"
    eventually(lambda: offset_file.exists() and int(offset_file.read_bytes()[:20]) == one.offset)


def test_a_handler_that_runs_on_holds_up_unsubscribe_until_its_time_limit(m: Messenger, channel: str) -> None:
    running, go_on = threading.Event(), threading.Event()

    @m.subscribe(channel, "s")
    def slow(_: Message[Any]) -> None:
        running.set()
        go_on.wait(DEADLINE_S)

    m.publish(channel, 1, payload_type=PLAIN)
    assert running.wait(DEADLINE_S)
    with pytest.raises(TimeoutError, match="handler still runs"):
        m.unsubscribe(channel, "s", timeout=0.05)
    go_on.set()
    m.unsubscribe(channel, "s")


# ---- statistics


def test_statistics_say_what_was_done_and_what_is_behind(m: Messenger, channel: str, shared_dir: Path) -> None:
    go_on = threading.Event()
    inbox = Inbox()

    @m.subscribe(channel, "slow")
    def slow(message: Message[Any]) -> None:
        inbox(message)
        go_on.wait(DEADLINE_S)

    m.publish_batch(channel, range(10), payload_type=PLAIN)
    inbox.next()
    eventually(lambda: m.stats().frames > 0 and m.stats().syncs > 0)
    stats = m.stats()
    assert (stats.writer_state, stats.strict) == ("open", True)
    (one,) = stats.subscribers
    size = (shared_dir / "channels" / channel / "00000000000000000000.jsonl").stat().st_size
    assert (one.channel, one.id, one.offset, one.lag_bytes) == (channel, "slow", 0, size)
    go_on.set()
    assert inbox.take(9) == list(range(1, 10))
    eventually(lambda: m.stats().subscribers[0].lag_bytes == 0)
    eventually(lambda: m.stats().subscribers[0].handled == 10)
    assert m.stats().subscribers[0].failed == 0


def test_refusals_are_counted(m: Messenger, channel: str, shared_dir: Path) -> None:
    before = m.stats().refused
    (shared_dir / "channels" / channel).write_text("x")
    for _ in range(3):
        with pytest.raises(PublishRefused):
            m.publish(channel, 1, payload_type=PLAIN)
    eventually(lambda: m.stats().refused == before + 3)


# ---- time limits


def test_a_publish_that_is_not_committed_in_time_says_that_it_may_still_be(m: Messenger, shared_dir: Path) -> None:
    m.publish("timeouts", 0, payload_type=PLAIN)
    pid = writer_pid(shared_dir)
    assert pid is not None
    freeze(pid)
    try:
        began = time.monotonic()
        with pytest.raises(PublishTimeout, match="may still be committed"):
            m.publish("timeouts", 1, payload_type=PLAIN, timeout=0.1)
        with pytest.raises(TimeoutError):
            m.publish_batch("timeouts", [2], payload_type=PLAIN, timeout=0.1)
        with pytest.raises(PublishTimeout), m.atomic(timeout=0.1) as tx:
            tx.publish("timeouts", 3, payload_type=PLAIN)
        assert 0.3 <= time.monotonic() - began < 3
        for number in range(2):
            with pytest.raises(PublishTimeout, match="may still be"):
                m.publish("timeouts", str(number) * 100_000, payload_type=PLAIN, timeout=0.05)
        with pytest.raises(PublishTimeout, match="nothing of it was published"):
            m.publish("timeouts", "2" * 100_000, payload_type=PLAIN, timeout=0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    m.publish("timeouts", 4, payload_type=PLAIN, timeout=DEADLINE_S)
    found = [line["payload"] for line in lines(shared_dir, "timeouts")]
    assert found[:4] == [0, 1, 2, 3]
    assert found[-1] == 4
    assert [payload[0] for payload in found[4:-1]] == ["0", "1"]


# ---- the end


@pytest.mark.parametrize("timeout", ["2", math.nan, object()], ids=_id_of)
def test_a_time_limit_that_is_none_is_told_before_anything_is_done(
    m: Messenger, channel: str, shared_dir: Path, timeout: Any
) -> None:
    m.subscribe(channel, "s", Inbox())
    calls: list[Any] = [
        lambda: m.publish(channel, 1, payload_type="t", timeout=timeout),
        lambda: m.publish_batch(channel, [1], payload_type="t", timeout=timeout),
        lambda: m.atomic(timeout=timeout).__enter__(),
        lambda: m.unsubscribe(channel, "s", timeout=timeout),
        lambda: m.drain(timeout),
        lambda: m.close(timeout),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="timeout is a number of seconds"):
            call()
    assert not m.is_closed
    assert lines(shared_dir, channel) == []
    m.unsubscribe(channel, "s")


def test_a_closed_messenger_says_so(shared_dir: Path) -> None:
    with Messenger(shared_dir) as m:
        pass
    for call in (m.stats, m.drain, lambda: m.publish("c", 1, payload_type="t"), lambda: m.unsubscribe("c", "s")):
        with pytest.raises(ClosedError):
            call()


def test_close_may_be_repeated_and_ends_everything(shared_dir: Path, channel: str) -> None:
    m = Messenger(shared_dir)
    m.subscribe(channel, "s", Inbox())
    m.close()
    m.close()
    assert "closed" in repr(m)
    for use in (
        lambda: m.publish(channel, 1, payload_type=PLAIN),
        lambda: m.publish_batch(channel, [1], payload_type=PLAIN),
        lambda: m.subscribe(channel, "t", Inbox()),
        lambda: m.unsubscribe(channel, "s"),
    ):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError), m.atomic() as tx:
        tx.publish(channel, 1, payload_type=PLAIN)
    assert not [thread.name for thread in threading.enumerate() if channel in thread.name]


def test_the_block_that_ends_with_an_error_closes_too(shared_dir: Path) -> None:
    def fail() -> None:
        nonlocal messenger
        with Messenger(shared_dir) as messenger:
            raise LookupError

    messenger: Any = None
    with pytest.raises(LookupError):
        fail()
    with pytest.raises(ClosedError):
        messenger.publish("c", 1, payload_type=PLAIN)


def test_close_gives_up_on_a_handler_that_runs_on_and_its_message_comes_again(
    shared_dir: Path, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    m = Messenger(shared_dir)
    running, go_on = threading.Event(), threading.Event()

    @m.subscribe(channel, "s")
    def slow(_: Message[Any]) -> None:
        running.set()
        go_on.wait(DEADLINE_S)

    m.publish(channel, "again", payload_type=PLAIN)
    assert running.wait(DEADLINE_S)
    with caplog.at_level(logging.WARNING):
        m.close(timeout=0.1)
    assert "its handler still runs" in caplog.text
    inbox = Inbox()
    with Messenger(shared_dir) as successor:
        successor.subscribe(channel, "s", inbox)
        assert inbox.next().payload == "again"
    go_on.set()


def test_close_from_inside_a_handler_ends_without_repeating_its_message(shared_dir: Path, channel: str) -> None:
    """Handle so many, then close: the way many a small program ends."""
    m = Messenger(shared_dir)
    closed = threading.Event()

    @m.subscribe(channel, "s")
    def last(_: Message[Any]) -> None:
        m.close()
        closed.set()

    m.publish(channel, "the last", payload_type=PLAIN)
    assert closed.wait(DEADLINE_S)
    ends = (f"keyop-{channel}-s", "keyop-end")
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name in ends])
    inbox = Inbox()
    with Messenger(shared_dir) as successor:
        successor.subscribe(channel, "s", inbox)
        successor.publish(channel, "next", payload_type=PLAIN)
        assert inbox.next().payload == "next"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_blocks_until_a_signal_and_then_closes(data_dir: Path, number: int) -> None:
    source = """
        m = Messenger(data_dir)
        @m.subscribe("c", "s")
        def handle(message):
            say("handled", message.payload)
        before = signal.getsignal(signal.SIGTERM)
        def tell():
            while signal.getsignal(signal.SIGTERM) == before:
                time.sleep(0.001)
            say("running")
        threading.Thread(target=tell).start()
        m.run()
        assert signal.getsignal(signal.SIGTERM) == before
        try:
            m.publish("c", 2, payload_type="t")
        except ClosedError:
            say("closed")
    """
    with Child(source, data_dir) as child, Messenger(data_dir) as m:
        child.expect("running")
        m.publish("c", 1, payload_type=PLAIN)
        child.expect("handled 1")
        child.signal(number)
        child.expect("closed")
        assert child.end() == 0
        assert child.errors == ""
        m.subscribe("c", "s", Inbox())


# ---- directories


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataDirectoryError, match="not a directory"):
        Messenger(tmp_path / "file" / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "channels").write_text("x")
    with pytest.raises(DataDirectoryError, match="channels: a file where a directory should be; move it away"):
        Messenger(tmp_path / "data")
    with pytest.raises((ConfigError, DataDirectoryError)):
        Messenger(tmp_path / "file")
    with pytest.raises(ConfigError):
        Messenger()
    with pytest.raises(ConfigError):
        Messenger(5)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["channels", "data", "file"]


def test_a_messenger_that_fails_half_way_leaves_nothing_behind(data_dir: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(PayloadError):
        Messenger(data_dir, name="\ud800")
    eventually(lambda: threading.active_count() <= threads)
    assert not list((data_dir / "run").glob("port-*")) or writer_pid(data_dir)
    eventually(lambda: not list((data_dir / "run").glob("port-*")))


# ---- modes


def test_periodic_publishes_return_before_the_sync_and_are_there_for_everybody(data_dir: Path) -> None:
    settings = settings_for(data_dir, storage={"sync_interval_ms": 60_000})
    inbox = Inbox()
    with Messenger(settings) as m:
        m.subscribe("c", "s", inbox)
        assert not m.stats().strict
        m.publish("c", -1, payload_type=PLAIN)
        syncs = m.stats().syncs
        for number in range(500):
            m.publish("c", number, payload_type=PLAIN)
        m.publish_batch("c", range(500, 510), payload_type=PLAIN)
        assert inbox.take(511) == list(range(-1, 510))
        assert m.stats().syncs == syncs
        m.publish("c", 510, payload_type=PLAIN, sync=True)
        eventually(lambda: m.stats().syncs == syncs + 1)
        m.publish_batch("c", [511], payload_type=PLAIN, sync=True)
        eventually(lambda: m.stats().syncs == syncs + 2)
        with m.atomic() as tx:
            tx.publish("c", 512, payload_type=PLAIN)
        eventually(lambda: m.stats().syncs == syncs + 3)
        m.publish("c", 513, payload_type=PLAIN, sync=False)
        assert inbox.take(4) == list(range(510, 514))


def test_periodic_frames_are_synced_after_the_interval(data_dir: Path) -> None:
    with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 50})) as m:
        m.publish("c", 0, payload_type=PLAIN)
        m.publish("c", 1, payload_type=PLAIN)
        syncs = m.stats().syncs
        # The count on the board is as of the last frame.
        eventually(lambda: m.publish("c", 2, payload_type=PLAIN) and m.stats().syncs > syncs)


def test_a_periodic_publish_that_is_refused_later_is_logged(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first publish to a channel waits for the writer's word in any mode; later ones do not."""
    with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 1000})) as m:
        (data_dir / "channels").mkdir(exist_ok=True)
        (data_dir / "channels" / "c").write_text("x")
        with pytest.raises(PublishRefused):
            m.publish("c", 1, payload_type=PLAIN)


def test_explicit_settings_that_differ_from_the_writers_are_warned_of(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 250})) as m:
        assert caplog.text == ""
        with Messenger(data_dir):
            assert caplog.text == ""
        with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 0})) as strict:
            assert "storage.sync_interval_ms is 0 here, but the writer that runs was started with 250" in caplog.text
            strict.publish("c", 0, payload_type=PLAIN)
            syncs = m.stats().syncs
            strict.publish("c", 1, payload_type=PLAIN)
            eventually(lambda: m.stats().syncs > syncs)
        caplog.clear()
        logger = logging.getLogger("mine")
        with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 500}), logger=logger):
            (record,) = caplog.records
            assert record.name == "mine"
            assert "500" in record.getMessage()
            assert "250" in record.getMessage()


def test_a_logger_of_ones_own_gets_what_its_subscriptions_say(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    def handler(_message: object) -> None:
        raise ValueError("no use")

    with Messenger(data_dir, logger=logging.getLogger("mine")) as m:
        m.subscribe("c", "s", handler, max_retries=0)
        m.publish("c", 1, payload_type=PLAIN)
        assert m.drain(DEADLINE_S)
    assert {record.name for record in caplog.records} == {"mine.subscriber"}
    assert "is a dead letter: ValueError: no use" in caplog.text


# ---- many threads


def test_32_threads_publish_and_subscribe(m: Messenger, channel: str) -> None:
    threads, each = 32, 40
    inboxes = [Inbox() for _ in range(8)]
    for number, inbox in enumerate(inboxes):
        m.subscribe(channel, f"s{number}", inbox)
    ids: list[list[str]] = [[] for _ in range(threads)]

    def publish(number: int) -> None:
        for turn in range(each):
            ids[number].append(m.publish(channel, [number, turn], payload_type=PLAIN, timeout=DEADLINE_S))

    publishers = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    for one in publishers:
        one.start()
    for one in publishers:
        one.join(DEADLINE_S)
    assert [len(one) for one in ids] == [each] * threads
    assert len({id for one in ids for id in one}) == threads * each
    orders = []
    for inbox in inboxes:
        got = inbox.take(threads * each)
        orders.append(got)
        for number in range(threads):
            assert [turn for who, turn in got if who == number] == list(range(each))
        assert inbox.messages.empty()
    assert all(order == orders[0] for order in orders)


def test_threads_subscribe_and_unsubscribe_meanwhile(m: Messenger, channel: str) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def come_and_go(number: int) -> None:
        try:
            for _ in range(10):
                inbox = Inbox()
                m.subscribe(channel, f"s{number}", inbox)
                inbox.next()
                m.unsubscribe(channel, f"s{number}")
        except BaseException as error:
            failures.append(error)

    def publish() -> None:
        while not stop.is_set():
            m.publish(channel, 1, payload_type=PLAIN)

    publisher = threading.Thread(target=publish)
    publisher.start()
    comers = [threading.Thread(target=come_and_go, args=(number,)) for number in range(6)]
    for one in comers:
        one.start()
    for one in comers:
        one.join(DEADLINE_S)
    stop.set()
    publisher.join(DEADLINE_S)
    assert failures == []


def test_more_subscriptions_than_one_page_has_slots(m: Messenger, channel: str) -> None:
    inbox = Inbox()
    for number in range(70):
        m.subscribe(channel, f"s{number}", inbox)
    m.publish(channel, 1, payload_type=PLAIN)
    assert inbox.take(70) == [1] * 70
    assert {one.lag_bytes for one in m.stats().subscribers} == {0}
