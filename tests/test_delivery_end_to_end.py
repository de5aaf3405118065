"""Delivery with real processes: retries, dead letters, deaths in the middle, and damage in what is read."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, freeze, kill_writer, writer_pid
from conftest import end_writer, leave
from inbox import Inbox

from keyop import Message, Messenger
from keyop.configuration.lookup import settings_for
from keyop.configuration.settings import Settings
from keyop.errors import RetryLater, SubscriberBusy
from keyop.ipc import layout
from keyop.statistics import SubscriberStatistics

DEADLINE_S = 20.0
TYPE = "com.example.test.v1"
QUICK = (0.01, 0.05)


def publish(m: Messenger, *payloads: Any, channel: str = "c") -> None:
    for payload in payloads:
        m.publish(channel, payload, payload_type=TYPE)


def of(m: Messenger, id: str = "s") -> SubscriberStatistics:
    return next(one for one in m.stats().subscribers if one.id == id)


def caught_up(m: Messenger) -> None:
    eventually(lambda: all(one.lag_bytes == 0 for one in m.stats().subscribers))


def filed(data_dir: Path, id: str = "s", channel: str = "c") -> int:
    path = data_dir / "subscribers" / channel / f"{id}.offset"
    return int(path.read_bytes()[:20]) if path.exists() else -1


def segment(data_dir: Path, start: int = 0, channel: str = "c") -> Path:
    return data_dir / "channels" / channel / f"{start:020d}.jsonl"


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("delivery") / "data"
    yield path
    leave(path)


@pytest.fixture
def m(shared_dir: Path) -> Iterator[Messenger]:
    with Messenger(shared_dir) as messenger:
        yield messenger


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**9}"


def fail_on(*payloads: Any, error: Callable[[], BaseException] = lambda: ValueError("no")) -> Callable[[Any], None]:
    def fail(message: Message[Any]) -> None:
        if message.payload in payloads:
            raise error()

    return fail


# ---- attempts


def test_a_failing_message_is_tried_again_with_growing_waits_and_then_is_a_dead_letter(
    m: Messenger, channel: str, shared_dir: Path
) -> None:
    """Cases 20 and 31. The message behind it waits for it."""
    times: list[float] = []
    inbox = Inbox(lambda message: times.append(time.monotonic()) or fail_on("bad")(message))
    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", inbox, max_retries=3, retry_backoff=(0.02, 0.05))
    before = datetime.now(UTC)
    id = m.publish(channel, "bad", payload_type=TYPE, correlation_id="c1", service_name="shop")
    m.publish(channel, "good", payload_type=TYPE)
    got = [inbox.next() for _ in range(5)]
    assert [(message.payload, message.attempt) for message in got] == [
        ("bad", 1), ("bad", 2), ("bad", 3), ("bad", 4), ("good", 1),
    ]  # fmt: skip
    assert {message.id for message in got[:4]} == {id}
    waits = [later - earlier for earlier, later in pairwise(times[:4])]
    assert [wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.05), strict=True)] == [True] * 3
    assert waits[2] < 1
    letter = dead.next()
    assert list(letter.payload) == ["original", "retries", "last_error", "failed_at", "subscriber"]
    original = json.loads(segment(shared_dir, channel=channel).read_bytes().split(b"\n")[0])
    assert letter.payload["original"] == original
    assert (letter.payload["retries"], letter.payload["subscriber"]) == (3, "s")
    assert letter.payload["last_error"] == "ValueError: no"
    assert before <= datetime.fromisoformat(letter.payload["failed_at"]) <= datetime.now(UTC)
    assert letter.payload_type == "com.keyop.messenger.DeadLetterPayload"
    assert letter.channel == f"{channel}.dead-letter"
    caught_up(m)
    assert (of(m).handled, of(m).failed, of(m).dead_lettered) == (1, 4, 1)


def test_no_retries_is_one_attempt(m: Messenger, channel: str) -> None:
    inbox, dead = Inbox(fail_on("bad")), Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", inbox, max_retries=0)
    publish(m, "bad", "good", channel=channel)
    assert inbox.take(2) == ["bad", "good"]
    assert dead.next().payload["retries"] == 0


def test_success_at_a_later_attempt_makes_no_dead_letter(m: Messenger, channel: str, shared_dir: Path) -> None:
    def fail(message: Message[Any]) -> None:
        if message.attempt < 3:
            raise OSError("not yet")

    inbox = Inbox(fail)
    m.subscribe(channel, "s", inbox, retry_backoff=QUICK)
    publish(m, 1, 2, channel=channel)
    assert [(one.payload, one.attempt) for one in (inbox.next() for _ in range(6))] == [
        (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3),
    ]  # fmt: skip
    caught_up(m)
    assert not (shared_dir / "channels" / f"{channel}.dead-letter").exists()


def test_subscribers_fail_each_for_itself(m: Messenger, channel: str) -> None:
    broken, well, dead = Inbox(fail_on(1, 2)), Inbox(), Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "broken", broken, max_retries=1, retry_backoff=(0.5, 0.5))
    m.subscribe(channel, "well", well)
    publish(m, 1, 2, 3, channel=channel)
    assert well.take(3) == [1, 2, 3]
    assert broken.take(5) == [1, 1, 2, 2, 3]
    assert {dead.next().payload["subscriber"] for _ in range(2)} == {"broken"}


class WithoutText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (lambda: WithoutText(), "WithoutText (its text raised RuntimeError)"),
        (lambda: SystemExit(3), "SystemExit: 3"),
        (lambda: KeyboardInterrupt(), "KeyboardInterrupt: "),
        (lambda: ValueError("\ud800 ä\n"), "ValueError: ? ä\n"),
        (lambda: ValueError("x" * 100_000), "ValueError: " + "x" * (16 * 1024 - 12)),
    ],
    ids=["no text", "exit", "interrupt", "surrogate", "long"],
)
def test_whatever_a_handler_raises_is_a_failed_attempt(
    m: Messenger, channel: str, error: Callable[[], BaseException], text: str
) -> None:
    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    inbox = Inbox(fail_on("bad", error=error))
    m.subscribe(channel, "s", inbox, max_retries=1, retry_backoff=QUICK)
    publish(m, "bad", "good", channel=channel)
    assert dead.next().payload["last_error"] == text
    assert inbox.take(3) == ["bad", "bad", "good"]


def test_an_error_that_is_its_own_cause_ends(m: Messenger, channel: str) -> None:
    def fail(message: Message[Any]) -> None:
        if message.payload == "bad":
            error = ValueError("circle")
            raise error from error

    inbox = Inbox(fail)
    m.subscribe(channel, "s", inbox, max_retries=0)
    publish(m, "bad", "good", channel=channel)
    assert inbox.take(2) == ["bad", "good"]


def test_what_fails_on_a_dead_letter_channel_is_given_up(m: Messenger, channel: str, shared_dir: Path) -> None:
    """Case 27."""
    m.subscribe(channel, "s", Inbox(fail_on(1, 2)), max_retries=0)
    inbox = Inbox(lambda _: fail_on(1)(_) or (_ for _ in ()).throw(ValueError("also")))
    m.subscribe(f"{channel}.dead-letter", "u", inbox, max_retries=1, retry_backoff=QUICK)
    publish(m, 1, 2, channel=channel)
    assert [inbox.next().payload["original"]["payload"] for _ in range(4)] == [1, 1, 2, 2]
    caught_up(m)
    assert not (shared_dir / "channels" / f"{channel}.dead-letter.dead-letter").exists()
    assert of(m, "u").dead_lettered == 0


def test_a_dead_letter_that_cannot_be_written_is_not_lost(m: Messenger, channel: str, shared_dir: Path) -> None:
    """Case 23: the channel for it is a file until it is moved away."""
    blocked = shared_dir / "channels" / f"{channel}.dead-letter"
    blocked.write_text("mine")
    inbox = Inbox(fail_on("bad"))
    m.subscribe(channel, "s", inbox, max_retries=0, retry_backoff=QUICK)
    publish(m, "bad", "good", channel=channel)
    assert inbox.next().payload == "bad"
    refused = m.stats().refused
    eventually(lambda: m.stats().refused > refused)
    assert of(m).offset == 0
    assert inbox.messages.empty()
    blocked.unlink()
    assert inbox.next().payload == "good"
    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead, start="earliest")
    assert dead.next().payload["original"]["payload"] == "bad"


# ---- RetryLater


@pytest.mark.parametrize("exactly_once", [False, True])
def test_retry_later_uses_up_nothing(m: Messenger, channel: str, shared_dir: Path, exactly_once: bool) -> None:
    """Case 22: on attempt 1, on attempt 3 after two errors, and wrapped in another error."""
    script: list[BaseException | None] = [
        RetryLater(), None,
        ValueError("1"), ValueError("2"), RetryLater("now wait"), ValueError("3"), ValueError("4"), None,
        RuntimeError("wrapped"), None,
    ]  # fmt: skip
    steps = iter(script)

    def fail(message: Message[Any]) -> None:
        step = next(steps)
        if isinstance(step, RuntimeError):
            try:
                raise RetryLater
            except RetryLater as inner:
                raise step from inner
        if step is not None:
            raise step

    inbox = Inbox(fail)
    m.subscribe(channel, "s", inbox, max_retries=2, retry_backoff=QUICK, exactly_once=exactly_once)
    m.subscribe(channel, "other", other := Inbox())
    publish(m, "a", "b", "c", channel=channel)
    assert other.take(3) == ["a", "b", "c"]
    got = []
    for _ in script:
        publish(m, "news", channel=channel)  # a new message ends the wait
        got.append(inbox.next())
    assert [(message.payload, message.attempt) for message in got] == [
        ("a", 1), ("a", 1),
        ("b", 1), ("b", 2), ("b", 3), ("b", 1), ("b", 2), ("b", 3),
        ("c", 1), ("c", 1),
    ]  # fmt: skip
    assert not (shared_dir / "channels" / f"{channel}.dead-letter").exists()
    assert of(m).deferred == 3


def test_an_error_that_replaces_retry_later_is_an_error(m: Messenger, channel: str) -> None:
    def fail(_: Message[Any]) -> None:
        try:
            raise RetryLater
        except RetryLater:
            raise ValueError("no") from None

    inbox, dead = Inbox(fail), Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", inbox, max_retries=0)
    publish(m, 1, channel=channel)
    assert dead.next().payload["last_error"] == "ValueError: no"


# ---- the end of a process


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_stop_during_a_retry_wait_leaves_the_message(data_dir: Path, exactly_once: bool) -> None:
    """Case 20: with a later message in the backlog; its attempts go on where they were."""
    with Messenger(data_dir) as m:
        inbox = Inbox(fail_on("bad"))
        m.subscribe("c", "s", inbox, max_retries=2, retry_backoff=(30, 30), exactly_once=exactly_once)
        publish(m, "bad", "later")
        assert inbox.next().payload == "bad"
    assert filed(data_dir) == 0
    with Messenger(data_dir) as m:
        inbox, dead = Inbox(fail_on("bad")), Inbox()
        m.subscribe("c.dead-letter", "undertaker", dead)
        m.subscribe("c", "s", inbox, max_retries=2, retry_backoff=QUICK, exactly_once=exactly_once)
        got = [inbox.next() for _ in range(3)]
        assert [(one.payload, one.attempt) for one in got] == [("bad", 2), ("bad", 3), ("later", 1)]
        assert dead.next().payload["original"]["payload"] == "bad"
        caught_up(m)
    assert filed(data_dir) == segment(data_dir).stat().st_size


def test_attempts_survive_a_clean_stop_of_the_writer(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        inbox = Inbox(fail_on("bad"))
        m.subscribe("c", "s", inbox, retry_backoff=(30, 30))
        publish(m, "bad")
        inbox.next()
    end_writer(data_dir)
    assert (data_dir / "run/attempts").read_bytes().startswith(b"c\ts\t0\t1\t")
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, retry_backoff=QUICK)
        assert inbox.next().attempt == 2


def test_attempts_with_a_damaged_digit_do_not_count(data_dir: Path) -> None:
    """Nine attempts would be more than are allowed: a dead letter without another run."""
    with Messenger(data_dir) as m:
        inbox = Inbox(fail_on("bad"))
        m.subscribe("c", "s", inbox, retry_backoff=(30, 30))
        publish(m, "bad")
        inbox.next()
    end_writer(data_dir)
    path = data_dir / "run/attempts"
    path.write_bytes(path.read_bytes().replace(b"\t1\t", b"\t9\t"))
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, retry_backoff=QUICK)
        assert inbox.next().attempt == 1
    assert "attempts_damaged" in (data_dir / "run/writer.log").read_text()


def test_a_clean_stop_takes_the_unfinished_attempt_back(data_dir: Path) -> None:
    m = Messenger(data_dir)
    running, go_on = threading.Event(), threading.Event()

    def slow(_: Message[Any]) -> None:
        running.set()
        go_on.wait(DEADLINE_S)
        raise ValueError("stopped")

    m.subscribe("c", "s", slow, retry_backoff=(30, 30))
    publish(m, 1)
    assert running.wait(DEADLINE_S)
    closer = threading.Thread(target=m.close)
    closer.start()
    go_on.set()
    closer.join(DEADLINE_S)
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, retry_backoff=QUICK)
        assert inbox.next().attempt == 2


KILLER = """
    m = Messenger(data_dir)
    how = sys.argv[2]
    def handle(message):
        say(message.payload, message.attempt)
        if message.payload == "deadly":
            os._exit(9) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
    m.subscribe("c", "s", handle, start="earliest", max_retries=2, retry_backoff=(0.01, 0.05),
                exactly_once=sys.argv[3] == "True")
    say("ready")
    m.run()
"""


@pytest.mark.parametrize(("how", "exactly_once"), [("exit", False), ("kill", True)])
def test_a_message_that_kills_its_process_is_a_dead_letter_after_its_retries(
    data_dir: Path, how: str, exactly_once: bool
) -> None:
    with Messenger(data_dir) as m:
        dead = Inbox()
        m.subscribe("c.dead-letter", "undertaker", dead)
        publish(m, "before", "deadly", "after")
        seen = []
        for _ in range(3):
            with Child(KILLER, data_dir, how, exactly_once) as child:
                lines = child.rest()
                assert child.end() != 0
            seen += [line for line in lines if line != "ready"]
        if exactly_once:  # a move that was not committed is made again, and its handler runs again
            seen = ["before 1", *(line for line in seen if line != "before 1")]
        assert seen == ["before 1", "deadly 1", "deadly 2", "deadly 3"]
        with Child(KILLER, data_dir, how, exactly_once) as child:
            lines = [child.hear(), child.hear()]
            assert "after 1" in lines
        letter = dead.next().payload
        assert letter["last_error"] == "the process ended during attempt 3"
        assert letter["original"]["payload"] == "deadly"
        assert letter["retries"] == 2
        caught_up(m)


def test_attempts_of_a_killed_process_survive_a_killed_writer(data_dir: Path) -> None:
    """Both die, one right after the other; the port alone remembers, and the next writer reads it."""
    with Messenger(data_dir) as m:
        publish(m, "deadly", "after")
    seen = []
    for _ in range(3):
        with Child(KILLER, data_dir, "kill", False) as child:
            seen += [line for line in child.rest() if line != "ready"]
        kill_writer(data_dir)
    assert seen == ["deadly 1", "deadly 2", "deadly 3"]
    with Child(KILLER, data_dir, "kill", False) as child:
        assert "after 1" in (child.hear(), child.hear())


COUNTER = """
    m = Messenger(data_dir)
    def handle(message):
        say(message.payload)
        if message.payload == int(sys.argv[2]):
            hear()
    m.subscribe("c", "s", handle, start="earliest")
    m.run()
"""


def test_the_next_process_goes_on_exactly_where_a_killed_one_was(data_dir: Path) -> None:
    """At most the message under way is seen twice: by offsets in shared memory, not by files."""
    total = 3000
    with Messenger(data_dir) as m:
        for start in range(0, total, 100):
            m.publish_batch("c", range(start, start + 100), payload_type=TYPE)
        seen: list[int] = []
        for stop in (700, 1400, 2100, 2800):
            with Child(COUNTER, data_dir, stop) as child:
                while not seen or seen[-1] < stop - 500:
                    seen.append(int(child.hear()))
                child.process.kill()
                seen += [int(line) for line in child.rest()]
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        while not seen or seen[-1] != total - 1:
            seen.append(inbox.next().payload)
    assert sorted(set(seen)) == list(range(total))
    assert seen == sorted(seen)
    assert len(seen) <= total + 4


def test_a_killed_writer_is_nobodys_business(data_dir: Path) -> None:
    """Publisher and subscriber go on; nothing is lost, nothing comes twice."""
    total = 400
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)

        def work() -> None:
            for number in range(total):
                m.publish("c", number, payload_type=TYPE)

        worker = threading.Thread(target=work)
        worker.start()
        for _ in range(3):
            got = inbox.take(1)
            kill_writer(data_dir)
            assert got
            eventually(lambda: writer_pid(data_dir))
        worker.join(DEADLINE_S)
        assert not worker.is_alive()
        got = inbox.take(total - 3)
        assert got == list(range(3, total))
        assert inbox.messages.empty()
        caught_up(m)
    lines = segment(data_dir).read_bytes().split(b"\n")[:-1]
    assert [json.loads(line)["payload"] for line in lines] == list(range(total))


# ---- one id, one process


def test_of_two_processes_with_one_id_the_second_is_told_who_has_it(data_dir: Path) -> None:
    with Child(COUNTER, data_dir, -1) as child, Messenger(data_dir) as m:
        publish(m, 1)
        child.expect("1")
        with pytest.raises(SubscriberBusy, match=rf"pid {child.pid}\).*choose another id, or stop that process"):
            m.subscribe("c", "s", Inbox())
        m.subscribe("c", "t", Inbox())
        child.kill()
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        publish(m, 2)
        assert inbox.next().payload == 2


def test_an_id_that_was_closed_is_free_at_once(data_dir: Path) -> None:
    for number in range(5):
        with Messenger(data_dir) as m:
            inbox = Inbox()
            m.subscribe("c", "s", inbox)
            publish(m, number)
            assert inbox.next().payload == number


# ---- where one begins


def test_a_new_id_begins_where_it_is_told(m: Messenger, channel: str) -> None:
    """Case 29, and offsets and times."""
    offsets = []
    for number in range(4):
        offsets.append(m._attachment.channel_end(channel))
        publish(m, number, channel=channel)
        if number == 1:
            eventually(lambda: time.time_ns() % 10**9)
            middle = datetime.now(UTC)
    starts: list[tuple[Any, list[int]]] = [
        ("latest", []),
        ("earliest", [0, 1, 2, 3]),
        (0, [0, 1, 2, 3]),
        (offsets[2], [2, 3]),
        (offsets[2] + 5, [2, 3]),
        (10**9, []),
        (middle, [2, 3]),
        (middle.astimezone(), [2, 3]),
        (middle - timedelta(days=1), [0, 1, 2, 3]),
        (middle + timedelta(days=1), []),
    ]
    inboxes = []
    for number, (start, _) in enumerate(starts):
        inboxes.append(Inbox())
        m.subscribe(channel, f"s{number}", inboxes[-1], start=start)
    publish(m, "end", channel=channel)
    for inbox, (start, expected) in zip(inboxes, starts, strict=True):
        assert inbox.take(len(expected) + 1) == [*expected, "end"], start


def test_a_start_does_not_count_for_an_id_that_was_there(data_dir: Path) -> None:
    for start, expected in (("earliest", "a"), (0, "b"), ("latest", "c")):
        with Messenger(data_dir) as m:
            inbox = Inbox()
            m.subscribe("c", "s", inbox, start=start)
            publish(m, expected)
            assert inbox.next().payload == expected
            caught_up(m)


@pytest.mark.parametrize("exactly_once", [False, True])
def test_what_is_older_than_max_age_is_passed_over_at_the_start(data_dir: Path, exactly_once: bool) -> None:
    """Case 30: over three segments; later messages are never dropped for their age."""
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", Inbox(), exactly_once=exactly_once)
        publish(m, "new")
        caught_up(m)
    end_writer(data_dir)
    whole = segment(data_dir).read_bytes()
    line = whole.split(b'"ts":"')
    old = datetime.now(UTC) - timedelta(hours=2)
    (data_dir / "subscribers/c/s.offset").unlink()
    at = 0
    for age_s, payloads in ((7200, "ab"), (7200, "cd"), (60, "ef")):
        stamp = (old + timedelta(seconds=7200 - age_s)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z").encode()
        text = b""
        for payload in payloads:
            text += line[0] + b'"ts":"' + stamp + line[1][30:].replace(b'"new"', b'"%s"' % payload.encode())
            text += b"not a record\n" if payload == "a" else b""
        segment(data_dir, at).write_bytes(text)
        at += len(text)
    with Messenger(data_dir) as m:
        inbox, all_of_it = Inbox(), Inbox()
        m.subscribe("c", "all", all_of_it, start="earliest")
        m.subscribe("c", "s", inbox, start="earliest", max_age=timedelta(hours=1), exactly_once=exactly_once)
        publish(m, "g")
        assert inbox.take(3) == ["e", "f", "g"]
        assert all_of_it.take(7) == ["a", "b", "c", "d", "e", "f", "g"]
        caught_up(m)
        assert of(m).skipped_bytes > 0


# ---- handlers of the other kind


def test_async_handlers_run_one_at_a_time_and_are_tried_again(m: Messenger, channel: str) -> None:
    import asyncio

    inbox = Inbox()
    running = 0
    loops = set()

    @m.subscribe(channel, "s", max_retries=1, retry_backoff=QUICK)
    async def handle(message: Message[Any]) -> None:
        nonlocal running
        running += 1
        assert running == 1
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        running -= 1
        inbox(message)
        if message.payload == 1 and message.attempt == 1:
            raise ValueError

    class AsyncHandler:
        async def __call__(self, message: Message[Any]) -> None:
            inbox(message)

    publish(m, 0, 1, 2, channel=channel)
    assert [(one.payload, one.attempt) for one in (inbox.next() for _ in range(4))] == [(0, 1), (1, 1), (1, 2), (2, 1)]
    assert len(loops) == 1
    caught_up(m)
    m.subscribe(channel, "object", AsyncHandler())
    publish(m, 3, channel=channel)
    assert inbox.take(2) == [3, 3]


def test_a_burst_while_the_handler_runs_is_delivered_without_another_publish(m: Messenger, channel: str) -> None:
    """Case 26."""
    running, go_on = threading.Event(), threading.Event()

    def slow(message: Message[Any]) -> None:
        if message.payload == "first":
            running.set()
            go_on.wait(DEADLINE_S)

    inbox = Inbox(slow)
    m.subscribe(channel, "s", inbox)
    publish(m, "first", channel=channel)
    assert running.wait(DEADLINE_S)
    for start in range(0, 1000, 50):
        m.publish_batch(channel, range(start, start + 50), payload_type=TYPE)
    go_on.set()
    assert inbox.take(1001) == ["first", *range(1000)]


def test_offset_files_follow_a_running_subscriber(data_dir: Path) -> None:
    """Case 25: also after a burst that is followed by silence."""
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        m.publish_batch("c", range(500), payload_type=TYPE)
        inbox.take(500)
        began = time.monotonic()
        eventually(lambda: filed(data_dir) == segment(data_dir).stat().st_size)
        assert time.monotonic() - began < 2


# ---- what stands in the segments


def messages_with(data_dir: Path, count: int) -> list[bytes]:
    """A channel of so many messages, at rest; its lines."""
    with Messenger(data_dir) as m:
        m.publish_batch("c", [{"n": number, "text": "x" * 40} for number in range(count)], payload_type=TYPE)
    end_writer(data_dir)
    return segment(data_dir).read_bytes().splitlines(keepends=True)


def delivered(data_dir: Path, exactly_once: bool = False) -> tuple[list[int], SubscriberStatistics]:
    """The numbers that a new subscriber gets, up to one that is published now."""
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest", exactly_once=exactly_once)
        publish(m, {"n": -1})
        numbers = []
        while -1 not in numbers:
            numbers.append(inbox.next().payload["n"])
        caught_up(m)
        return numbers[:-1], of(m)


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("damage", ["garbage", "nul", "flip", "binary", "halves", "glued"])
def test_damage_in_the_middle_costs_that_record_alone(data_dir: Path, damage: str, exactly_once: bool) -> None:
    lines = messages_with(data_dir, 9)
    expected = [number for number in range(9) if number != 4]
    if damage == "garbage":
        lines[4] = b"garbage\n"
    elif damage == "nul":
        lines[4] = bytes(len(lines[4]) - 1) + b"\n"
    elif damage == "flip":
        lines[4] = b"[" + lines[4][1:]
    elif damage == "binary":
        lines[4] = os.urandom(300).replace(b"\n", b"x") + b"\n"
    elif damage == "halves":
        lines[4] = lines[4][:50] + b"\n" + lines[4][50:]
    else:  # Go up to 1.12 glued a whole record to a torn one
        lines[4] = lines[4][:50] + lines[4]
        expected = list(range(9))
    segment(data_dir).write_bytes(b"".join(lines))
    numbers, stats = delivered(data_dir, exactly_once)
    assert numbers == expected
    assert stats.damaged == (2 if damage == "halves" else 1)
    assert segment(data_dir).read_bytes().startswith(b"".join(lines))


def test_damage_at_the_very_end_does_not_hold_up_the_offset(data_dir: Path) -> None:
    for exactly_once in (False, True):
        lines = messages_with(data_dir, 3)
        segment(data_dir).write_bytes(b"".join(lines) + b"garbage\n")
        with Messenger(data_dir) as m:
            inbox = Inbox()
            id = f"s{exactly_once}"
            m.subscribe("c", id, inbox, start="earliest", exactly_once=exactly_once)
            inbox.take(3)
            eventually(lambda: filed(data_dir, id) == segment(data_dir).stat().st_size)  # noqa: B023
        end_writer(data_dir)
        segment(data_dir).unlink()
        for path in (data_dir / "subscribers/c").iterdir():
            path.unlink()


def test_a_line_of_20_mib_is_skipped_alone(data_dir: Path) -> None:
    """Case 13: and 10,485,759 bytes with a newline are not too long."""
    lines = messages_with(data_dir, 3)
    longest = lines[1].replace(b"x" * 40, b"y" * (40 + 10_485_760 - len(lines[1])))
    assert len(longest) == 10_485_760
    lines[1:2] = [b'{"v":1,"text":"' + b"z" * (20 << 20) + b'"}\n', longest, longest.replace(b"yy", b"yyy", 1)]
    segment(data_dir).write_bytes(b"".join(lines))
    numbers, stats = delivered(data_dir)
    assert numbers == [0, 1, 2]
    assert stats.damaged == 2


def test_a_gap_an_overlap_and_foreign_files_among_the_segments(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cases 10, 16 and 17."""
    lines = messages_with(data_dir, 9)
    segment(data_dir).unlink()
    at = 0
    for group, gap in ((lines[:3], 1000), (lines[3:6], 0), (lines[6:], 0)):
        segment(data_dir, at).write_bytes(b"".join(group))
        at += sum(map(len, group)) + gap
    directory = data_dir / "channels/c"
    for name in ("5.jsonl", "-1.jsonl", "x.jsonl", "00000000000000000005.jsonl.gz", "a.offset.tmp", "notes.txt"):
        (directory / name).write_text("foreign\n")
    (directory / "sub").mkdir()
    (data_dir / "channels/README").write_text("foreign")
    (data_dir / "channels/c.dead-letter").mkdir()
    (data_dir / "channels/c.dead-letter.dead-letter").mkdir()
    with caplog.at_level(logging.WARNING):
        numbers, stats = delivered(data_dir)
    assert numbers == list(range(9))
    assert stats.skipped_bytes == 1000
    assert "a gap between segments" in caplog.text
    for name in ("5.jsonl", "x.jsonl", "sub", "notes.txt"):
        assert f"{name}: is no segment and ignored" in caplog.text
    assert len(list(directory.iterdir())) == 10
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c.dead-letter.dead-letter", "u", inbox, start="earliest")


@pytest.mark.parametrize("with_newline", [True, False])
def test_a_torn_last_line_is_cut_before_the_next_publish(data_dir: Path, with_newline: bool) -> None:
    """Cases 1 and 2: what was never acknowledged is not delivered, the next message is whole."""
    lines = messages_with(data_dir, 3)
    segment(data_dir).write_bytes(b"".join(lines) + (lines[1][:-1] if with_newline else lines[1][:57]))
    numbers, stats = delivered(data_dir)
    assert numbers == [0, 1, 2]
    assert stats.damaged == 0
    assert segment(data_dir).read_bytes().startswith(b"".join(lines) + b'{"v":1')


def test_a_reader_waits_for_the_rest_of_a_record(data_dir: Path) -> None:
    """Cases 3 and 14: another program writes half a record, and later its end."""
    lines = messages_with(data_dir, 4)
    segment(data_dir).write_bytes(b"".join(lines[:2]))
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest")
        assert [one["n"] for one in inbox.take(2)] == [0, 1]
        with segment(data_dir).open("ab", buffering=0) as file:
            file.write(lines[2][:30])
            ticks = m._attachment.ticks
            eventually(lambda: m._attachment.ticks > ticks + 1)
            assert inbox.messages.empty()
            file.write(lines[2][30:])
        assert inbox.next().payload["n"] == 2
        assert of(m).damaged == 0


@pytest.mark.parametrize("exactly_once", [False, True], ids=["plain", "exactly once"])
def test_what_a_failed_sync_has_lost_is_waited_for(data_dir: Path, exactly_once: bool) -> None:
    """While the writer waits for its disk lines may read as zeros. They are not passed over: it writes them again."""
    lines = messages_with(data_dir, 5)
    segment(data_dir).write_bytes(lines[0])
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest", exactly_once=exactly_once)
        assert inbox.next().payload["n"] == 0
        pid = writer_pid(data_dir)
        assert pid is not None
        freeze(pid)  # it would say what is true
        try:
            words = m._attachment.writer.board.words
            words[layout.STATE] = layout.STALLED
            segment(data_dir).write_bytes(lines[0] + bytes(len(lines[1] + lines[2])) + lines[3] + lines[4])
            ticks = m._attachment.ticks
            eventually(lambda: m._attachment.ticks > ticks + 2)
            assert inbox.messages.empty()
            segment(data_dir).write_bytes(b"".join(lines))
            words[layout.STATE] = layout.OPEN
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [one["n"] for one in inbox.take(4)] == [1, 2, 3, 4]
        assert of(m).damaged == 0


@pytest.mark.parametrize(
    "text", [b"", b"-5", b"+7", b" 0012", b"1_0", b"0x10", b"1" * 40, b"99999999", b"100", b"garbage"], ids=repr
)
def test_an_offset_file_of_any_contents_stops_nobody(data_dir: Path, text: bytes) -> None:
    """Cases 4, 7 and 8: no whole record that is there is skipped, but by an offset that says so."""
    lines = messages_with(data_dir, 5)
    (data_dir / "subscribers/c").mkdir(parents=True, exist_ok=True)
    (data_dir / "subscribers/c/s.offset").write_bytes(text)
    with Messenger(data_dir) as m:
        inbox, other = Inbox(), Inbox()
        m.subscribe("c", "s", inbox)
        m.subscribe("c", "other", other, start="earliest")
        publish(m, {"n": 5})
        numbers = []
        while 5 not in numbers:
            numbers.append(inbox.next().payload["n"])
        assert [one["n"] for one in other.take(6)] == list(range(6))
    first = 5 if text == b"99999999" else 0
    assert numbers == list(range(first, 6))
    assert len(lines[0]) > 100


def test_an_offset_file_that_is_a_directory_counts_as_nothing_and_stops_nobody(data_dir: Path) -> None:
    messages_with(data_dir, 2)
    (data_dir / "subscribers/c/s.offset").mkdir(parents=True)
    with Messenger(data_dir) as m:
        inbox, other = Inbox(), Inbox()
        m.subscribe("c", "s", inbox)
        m.subscribe("c", "other", other, start="earliest")
        assert [one["n"] for one in inbox.take(2)] == [0, 1]
        assert [one["n"] for one in other.take(2)] == [0, 1]
        eventually(lambda: filed(data_dir, "other") == segment(data_dir).stat().st_size)
        assert m.stats().writer_state == "open"
    log = (data_dir / "run/writer.log").read_text()
    assert "offset_damaged" in log
    assert "offset_not_filed" in log


@pytest.mark.parametrize("past", [1, -7], ids=["one past the end", "inside the last record"])
def test_an_offset_that_go_left_beside_a_torn_line_skips_no_whole_record(data_dir: Path, past: int) -> None:
    """Case 4: Go up to 1.12 counted a newline that was not there."""
    lines = messages_with(data_dir, 2)
    (data_dir / "subscribers/c").mkdir(parents=True)
    (data_dir / "subscribers/c/s.offset").write_text(str(sum(map(len, lines)) + past))
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        publish(m, {"n": 2}, {"n": 3})
        assert [one["n"] for one in inbox.take(3 if past < 0 else 2)] == ([1, 2, 3] if past < 0 else [2, 3])


def test_an_offset_below_the_first_segment_goes_on_at_the_first(data_dir: Path) -> None:
    """Case 6."""
    lines = messages_with(data_dir, 4)
    at = len(lines[0]) + len(lines[1])
    segment(data_dir, at).write_bytes(b"".join(lines[2:]))
    segment(data_dir).unlink()
    (data_dir / "subscribers/c").mkdir(parents=True)
    (data_dir / "subscribers/c/s.offset").write_text("0")
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        assert [one["n"] for one in inbox.take(2)] == [2, 3]
        caught_up(m)
        eventually(lambda: filed(data_dir) == at + len(lines[2]) + len(lines[3]))


def small_segments(data_dir: Path, **storage: Any) -> Settings:
    settings = settings_for(data_dir, storage={"compaction_threshold_mb": 1, **storage})
    return replace(settings, writer=replace(settings.writer, idle_exit=60.0))


def test_eviction_under_a_slow_subscriber_is_counted_and_it_goes_on(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Case 39: segments that it has not read are gone; it goes on with the first that is there."""
    with Messenger(small_segments(data_dir)) as m:
        running, go_on = threading.Event(), threading.Event()

        def slow(message: Message[Any]) -> None:
            if message.payload["n"] == 0:
                running.set()
                go_on.wait(DEADLINE_S)

        inbox = Inbox(slow)
        m.subscribe("c", "s", inbox)
        m.publish("c", {"n": 0}, payload_type=TYPE)
        assert running.wait(DEADLINE_S)
        for number in range(1, 9):
            m.publish("c", {"n": number, "bulk": "x" * 700_000}, payload_type=TYPE)
        starts = sorted(int(path.stem) for path in (data_dir / "channels/c").iterdir())
        assert len(starts) > 5
        for start in starts[:4]:
            segment(data_dir, start).unlink()
        with caplog.at_level(logging.WARNING):
            go_on.set()
            seen = [inbox.next().payload["n"] for _ in range(2)]
            while seen[-1] != 8:
                seen.append(inbox.next().payload["n"])
        assert seen[0] == 0
        assert seen[1:] == sorted(seen[1:])
        # What was read before its file went is delivered; nothing that is still there is missed.
        first = next(n for n in range(9) if b'"n":%d,' % n in segment(data_dir, starts[4]).read_bytes())
        assert set(range(first, 9)) <= set(seen)
        missed = first - 1 - len([n for n in seen if 0 < n < first])
        if missed:
            assert "what was not read yet has been removed" in caplog.text
            assert of(m).skipped_bytes >= missed * 700_000
        caught_up(m)
