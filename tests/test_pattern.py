"""Patterns: one subscriber of all channels that fit, those that are there and those that come."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, kill_writer
from conftest import end_writer
from inbox import Inbox
from test_cli import Cli

import keyop.aio
from keyop import Message, Messenger, RetryLater, SubscriberBusy, follow
from keyop.storage.pattern_file import read_seen

pytestmark = pytest.mark.alone

DEADLINE_S = 20.0
TYPE = "com.example.number.v1"


def publish(m: Messenger, channel: str, *payloads: Any) -> None:
    m.publish_batch(channel, payloads, payload_type=TYPE)


def file_of(data_dir: Path, id: str = "dash") -> Path:
    return data_dir / "subscribers" / ".patterns" / id


def seen(data_dir: Path, id: str = "dash") -> dict[str, set[str]]:
    return read_seen(file_of(data_dir, id))


def take(inbox: Inbox, count: int) -> set[tuple[str, Any]]:
    messages = [inbox.next() for _ in range(count)]
    return {(message.channel, message.payload) for message in messages}


def test_channels_that_are_there_and_channels_that_come(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 1)
        publish(m, "other", 1)
        m.subscribe("sensors.*", "dash", inbox)
        publish(m, "sensors.attic", 2)
        publish(m, "sensors.cellar", 3)
        publish(m, "sensors.cellar", 4)
        assert take(inbox, 3) == {("sensors.attic", 2), ("sensors.cellar", 3), ("sensors.cellar", 4)}
        eventually(lambda: seen(data_dir) == {"sensors.*": {"sensors.attic", "sensors.cellar"}})
        assert m.drain(DEADLINE_S)
        assert {(s.channel, s.id, s.handled) for s in m.stats().subscribers} == {
            ("sensors.attic", "dash", 1),
            ("sensors.cellar", "dash", 2),
        }


def test_the_first_time_start_decides_and_later_each_goes_on_at_its_place(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 1)
        m.subscribe("sensors.*", "dash", inbox, start="earliest")
        assert take(inbox, 1) == {("sensors.attic", 1)}
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 2)
        publish(m, "sensors.cellar", 3)  # comes while nobody follows
        m.subscribe("sensors.*", "dash", inbox, start="latest")
        assert take(inbox, 2) == {("sensors.attic", 2), ("sensors.cellar", 3)}


def test_a_pattern_that_fitted_nothing_is_known_all_the_same(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("sensors.*", "dash", inbox)
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 1)
        m.subscribe("sensors.*", "dash", inbox)
        assert take(inbox, 1) == {("sensors.attic", 1)}


def test_another_pattern_under_the_same_id_is_new(data_dir: Path) -> None:
    inbox, other = Inbox(), Inbox()
    with Messenger(data_dir) as m:
        publish(m, "alarms.attic", 1)
        m.subscribe("sensors.*", "dash", inbox)
        m.subscribe("alarms.*", "dash", other)
        publish(m, "alarms.attic", 2)
        assert take(other, 1) == {("alarms.attic", 2)}
    assert seen(data_dir) == {"sensors.*": set(), "alarms.*": {"alarms.attic"}}


def test_what_keyop_alone_writes_is_only_followed_by_its_name(data_dir: Path) -> None:
    def fail(_message: Message) -> None:
        raise ValueError("no")

    every, letters = Inbox(fail), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("*", "every", every, max_retries=0)
        m.subscribe("*.dead-letter", "letters", letters)
        publish(m, "sensors.attic", 1)
        assert letters.next().payload["original"]["payload"] == 1
        assert m.drain(DEADLINE_S)
        assert {s.channel for s in m.stats().subscribers if s.id == "every"} == {"sensors.attic"}
    assert every.messages.qsize() == 1


def test_one_message_at_a_time_and_each_channel_in_order(data_dir: Path) -> None:
    handled: dict[str, list[int]] = {}
    threads = set()
    running = threading.Lock()

    def handle(message: Message) -> None:
        assert running.acquire(blocking=False)
        threads.add(threading.current_thread())
        handled.setdefault(message.channel, []).append(message.payload)
        running.release()

    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", handle)
        for number in range(50):
            for channel in range(20):
                publish(m, f"c.{channel}", number)
        assert m.drain(DEADLINE_S)
    assert handled == {f"c.{channel}": list(range(50)) for channel in range(20)}
    assert len(threads) == 1


@pytest.mark.parametrize("exactly_once", [False, True])
def test_retries_of_one_channel_hold_up_no_other(data_dir: Path, exactly_once: bool) -> None:
    attempts: list[int] = []
    good = Inbox()

    def handle(message: Message) -> None:
        if message.channel == "c.bad":
            attempts.append(message.attempt)
            m.publish("out", "dropped" if exactly_once else "kept", payload_type=TYPE)
            raise ValueError("never")
        good(message)
        m.publish("out", message.payload, payload_type=TYPE)

    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", handle, max_retries=3, retry_backoff=(0.2, 0.2), exactly_once=exactly_once)
        publish(m, "c.bad", 1, 2)
        eventually(lambda: attempts)
        publish(m, "c.good", 1, 2, 3)
        assert good.take(3) == [1, 2, 3]
        assert len(attempts) < 8  # while the other one still had attempts to come
        assert m.drain(DEADLINE_S)
        assert attempts == [1, 2, 3, 4, 1, 2, 3, 4]
        statistics = {s.channel: s for s in m.stats().subscribers}
        assert (statistics["c.bad"].failed, statistics["c.bad"].dead_lettered) == (8, 2)
    letters = [
        each.payload["original"]["payload"] for each in follow(data_dir, "c.bad.dead-letter", "earliest", wait=False)
    ]
    assert letters == [1, 2]
    out = [each.payload for each in follow(data_dir, "out", "earliest", wait=False)]
    assert [each for each in out if each not in ("kept", "dropped")] == [1, 2, 3]
    assert ("dropped" in out, "kept" in out) == (False, not exactly_once)


def test_not_now_but_later_with_the_next_message(data_dir: Path) -> None:
    attempts: list[tuple[str, int]] = []
    open_ = threading.Event()

    def handle(message: Message) -> None:
        attempts.append((message.payload, message.attempt))
        if message.channel == "c.closed" and not open_.is_set():
            raise RetryLater

    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", handle)
        publish(m, "c.closed", "first")
        eventually(lambda: attempts)
        publish(m, "c.open", "other")
        eventually(lambda: ("other", 1) in attempts)
        open_.set()
        publish(m, "c.closed", "second")
        assert m.drain(DEADLINE_S)
    assert attempts[-2:] == [("first", 1), ("second", 1)]


def test_a_process_that_dies_between_attempts_leaves_their_count(data_dir: Path) -> None:
    code = """
    def handle(message):
        say(message.channel, message.attempt)
        if message.channel == "c.bad":
            raise ValueError("never")
    m = Messenger(data_dir)
    m.subscribe("c.*", "dash", handle, retry_backoff=(float(sys.argv[2]), 3600), max_retries=5, start="earliest")
    hear()
    """
    with Messenger(data_dir) as m:
        publish(m, "c.bad", 1)
    with Child(code, data_dir, 0.01) as first:
        for attempt in range(1, 4):
            first.expect(f"c.bad {attempt}")
        first.kill()
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c.*", "dash", inbox, retry_backoff=(0.01, 0.01))
        message = inbox.next()
        assert message.attempt >= 4


def test_a_stop_leaves_what_waits_where_it_is(data_dir: Path) -> None:
    def fail(_message: Message) -> None:
        raise ValueError("not yet")

    failing, inbox = Inbox(fail), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", failing, retry_backoff=(3600, 3600))
        publish(m, "c.bad", 1, 2)
        failing.next()
        eventually(lambda: m.stats().subscribers[0].failed == 1)
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox, retry_backoff=(0.01, 0.01))
        assert [(message.payload, message.attempt) for message in (inbox.next(), inbox.next())] == [(1, 2), (2, 1)]


def test_a_damaged_memory_loses_nothing(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 1)
        m.subscribe("sensors.*", "dash", inbox)
        publish(m, "sensors.attic", 2)
        assert take(inbox, 1) == {("sensors.attic", 2)}
    path = file_of(data_dir)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), Messenger(data_dir) as m:
        publish(m, "sensors.cellar", 3)
        m.subscribe("sensors.*", "dash", inbox)
        publish(m, "alarms.attic", 4)
        m.subscribe("alarms.*", "dash", inbox)  # which the damaged file may have named
        assert take(inbox, 2) == {("sensors.cellar", 3), ("alarms.attic", 4)}
    assert str(path) in caplog.text
    assert seen(data_dir)["sensors.*"] == {"sensors.attic", "sensors.cellar"}


def test_who_unsubscribes_begins_anew(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        publish(m, "sensors.attic", 1)
        m.subscribe("sensors.*", "dash", inbox)
        assert (data_dir / "subscribers" / "sensors.attic" / "dash.offset").exists() or m.drain(DEADLINE_S)
        m.unsubscribe("sensors.*", "dash")
        assert not file_of(data_dir).exists()
        publish(m, "sensors.attic", 2)
        m.subscribe("sensors.*", "dash", inbox)
        publish(m, "sensors.attic", 3)
        assert take(inbox, 1) == {("sensors.attic", 3)}
        with pytest.raises(KeyError):
            m.unsubscribe("sensors.?", "dash")


def test_a_handler_may_end_its_own_pattern(data_dir: Path) -> None:
    def handle(message: Message) -> None:
        m.unsubscribe("sensors.*", "dash")
        inbox(message)

    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("sensors.*", "dash", handle)
        publish(m, "sensors.attic", 1)
        inbox.next()
        eventually(lambda: not file_of(data_dir).exists())


def test_what_another_process_handles_is_refused_whole(data_dir: Path) -> None:
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        publish(m, "c.1", 1)
        publish(m, "c.2", 1)
        other.subscribe("c.2", "dash", print)
        with pytest.raises(SubscriberBusy):
            m.subscribe("c.*", "dash", print)
        assert not file_of(data_dir).exists()
        other.subscribe("c.1", "dash", print)  # it was given back


def test_a_channel_that_another_process_has_is_taken_when_it_is_free(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyop.subscriber.membership._TRY_AGAIN_S", 0.1)
    inbox = Inbox()
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c.*", "dash", inbox)
        theirs = Inbox()
        other.subscribe("c.1", "dash", theirs, start="earliest")
        publish(other, "c.1", 1)
        theirs.next()
        eventually(lambda: "c.1 is not followed yet" in caplog.text)
        assert m.drain(DEADLINE_S)
        other.unsubscribe("c.1", "dash")
        publish(other, "c.1", 2)
        assert take(inbox, 2) == {("c.1", 1), ("c.1", 2)}  # forgotten by the other one: from the start
    assert caplog.text.count("is not followed yet") == 1


def test_a_channel_that_is_deleted_and_comes_again_is_a_new_one(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)
        publish(m, "c.1", 1)
        assert take(inbox, 1) == {("c.1", 1)}
        assert m.drain(DEADLINE_S)
    end_writer(data_dir)
    shutil.rmtree(data_dir / "channels" / "c.1")
    shutil.rmtree(data_dir / "subscribers" / "c.1")
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)
        assert seen(data_dir) == {"c.*": set()}
        publish(m, "c.1", 2)
        assert take(inbox, 1) == {("c.1", 2)}


def test_messages_of_types_and_their_dead_letters(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.register_payload_type(TYPE, int)
        m.subscribe("c.*", "dash", inbox)
        m.publish("c.1", "no number", payload_type=TYPE)
        m.publish("c.1", 7, payload_type=TYPE)
        assert inbox.next().payload == 7
    assert len(list(follow(data_dir, "c.1.dead-letter", "earliest", wait=False))) == 1


def test_the_writer_may_be_killed(data_dir: Path) -> None:
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)
        publish(m, "c.1", 1)
        assert take(inbox, 1) == {("c.1", 1)}
        kill_writer(data_dir)
        publish(m, "c.1", 2)
        publish(m, "c.2", 3)
        assert take(inbox, 2) == {("c.1", 2), ("c.2", 3)}


def test_many_channels_need_one_thread_and_few_descriptors(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyop.subscriber.pattern._MOST_DESCRIPTORS", 10)
    inbox = Inbox()
    count = 200
    with Messenger(data_dir) as m:
        with m.atomic() as tx:
            for number in range(count):
                tx.publish(f"c.{number}", 0, payload_type=TYPE)
        m.subscribe("c.*", "dash", inbox)
        assert m.drain(DEADLINE_S)
        assert [each.name for each in threading.enumerate() if each.name.startswith("keyop-c.")] == ["keyop-c.*-dash"]
        for number in range(count):
            m.publish(f"c.{number}", number, payload_type=TYPE)
        assert take(inbox, count) == {(f"c.{number}", number) for number in range(count)}
        assert m.drain(DEADLINE_S)
        eventually(lambda: sum(".jsonl" in os.readlink(path) for path in descriptors()) < 20)


def descriptors() -> list[Path]:
    return [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_coroutine_functions_in_both_worlds(data_dir: Path) -> None:
    done = Inbox()

    async def handle(message: Message) -> None:
        await asyncio.sleep(0)
        done(message)

    with Messenger(data_dir) as m:
        m.subscribe("c.*", "threads", handle)
        publish(m, "c.1", 1)
        assert done.next().payload == 1

    async def program() -> None:
        async with keyop.aio.Messenger(data_dir) as m:
            await m.subscribe("c.*", "loop", handle)
            await m.publish("c.1", 2, payload_type=TYPE)
            await m.publish("c.2", 3, payload_type=TYPE)
            assert await m.drain(DEADLINE_S)

    asyncio.run(program())
    assert sorted(done.take(2)) == [2, 3]


def test_a_memory_that_cannot_be_written_is_written_later(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keyop.subscriber.seen_channels as memory

    real = memory.write_seen
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(memory, "write_seen", full)
        publish(m, "c.1", 1)
        assert take(inbox, 1) == {("c.1", 1)}
        eventually(lambda: "cannot be noted" in caplog.text)
        monkeypatch.setattr(memory, "write_seen", real)
        eventually(lambda: seen(data_dir) == {"c.*": {"c.1"}})


@pytest.mark.parametrize("exactly_once", [False, True])
def test_what_is_put_back_comes_to_the_pattern_s_subscriber(data_dir: Path, exactly_once: bool) -> None:
    """Its attempts hold up neither the channel that it is from nor others."""
    cli = Cli(data_dir)
    down = threading.Event()
    down.set()
    handled: list[tuple[str, Any, int]] = []

    def handle(message: Message) -> None:
        if message.payload == "bad" and (down.is_set() or message.attempt < 3):
            raise ConnectionError
        handled.append((message.channel, message.payload, message.attempt))

    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", handle, max_retries=3, retry_backoff=(0.01, 0.01), exactly_once=exactly_once)
        publish(m, "c.1", "bad")
        publish(m, "c.2", "good")
        assert m.drain(DEADLINE_S)
        assert handled == [("c.2", "good", 1)]
        down.clear()
        cli("dead-letter", "replay", "c.1", "--yes")
        eventually(lambda: ("c.1", "bad", 3) in handled)
        publish(m, "c.1", "next")
        assert m.drain(DEADLINE_S)
        assert handled == [("c.2", "good", 1), ("c.1", "bad", 3), ("c.1", "next", 1)]
