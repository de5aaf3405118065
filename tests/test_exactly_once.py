"""Exactly-once handlers: what they publish and the move of their offset commit together, whoever dies when."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, freeze, kill_writer, writer_pid
from conftest import leave
from inbox import Inbox

from keyop import Message, Messenger
from keyop.errors import AtomicError, MessageTooLarge, PayloadError, PublishRefused
from keyop.statistics import SubscriberStatistics

DEADLINE_S = 30.0
TYPE = "com.example.test.v1"
QUICK = (0.01, 0.02)


def payloads(data_dir: Path, channel: str) -> list[Any]:
    """What stands in a channel."""
    paths = sorted((data_dir / "channels" / channel).glob("*.jsonl"))
    return [json.loads(line)["payload"] for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


def of(m: Messenger, id: str) -> SubscriberStatistics:
    return next(one for one in m.stats().subscribers if one.id == id)


def done(m: Messenger) -> None:
    eventually(lambda: all(one.lag_bytes == 0 for one in m.stats().subscribers), DEADLINE_S)


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("exactly_once") / "data"
    yield path
    leave(path)


@pytest.fixture
def m(shared_dir: Path) -> Iterator[Messenger]:
    with Messenger(shared_dir) as messenger:
        yield messenger


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**9}"


def relay(m: Messenger, source: str, target: str, also: Callable[[Message[Any]], object] = lambda _: None) -> None:
    """Publish each message of one channel to another, exactly once."""

    def handle(message: Message[Any]) -> None:
        m.publish(target, message.payload, payload_type=TYPE)
        also(message)

    m.subscribe(source, "relay", handle, start="earliest", exactly_once=True, retry_backoff=QUICK)


# ---- without deaths


def test_what_a_handler_publishes_goes_with_its_offset(m: Messenger, channel: str, shared_dir: Path) -> None:
    def handle(message: Message[Any]) -> None:
        number = message.payload
        id = m.publish(f"{channel}-a", number, payload_type=TYPE)
        ids = m.publish_batch(f"{channel}-b", [number, id], payload_type=TYPE)
        assert len({id, *ids}) == 3

    m.subscribe(channel, "s", handle, exactly_once=True)
    inbox = Inbox()
    m.subscribe(f"{channel}-a", "after", inbox)
    first = m.publish(channel, 0, payload_type=TYPE)
    m.publish_batch(channel, range(1, 300), payload_type=TYPE)
    got = [inbox.next() for _ in range(300)]
    assert [message.payload for message in got] == list(range(300))
    assert got[0].correlation_id == first
    done(m)
    assert payloads(shared_dir, f"{channel}-b")[::2] == list(range(300))
    assert payloads(shared_dir, f"{channel}-b")[1::2] == [message.id for message in got]
    eventually(lambda: of(m, "s").handled == 300)


def test_a_failed_attempt_publishes_nothing(m: Messenger, channel: str, shared_dir: Path) -> None:
    def handle(message: Message[Any]) -> None:
        m.publish(f"{channel}-out", [message.payload, message.attempt], payload_type=TYPE)
        if message.payload == "bad" or (message.payload == "twice" and message.attempt < 2):
            raise ValueError("no")

    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", handle, exactly_once=True, max_retries=2, retry_backoff=QUICK)
    m.publish_batch(channel, ["a", "twice", "b", "bad", "c"], payload_type=TYPE)
    letter = dead.next().payload
    assert (letter["original"]["payload"], letter["retries"]) == ("bad", 2)
    done(m)
    assert payloads(shared_dir, f"{channel}-out") == [["a", 1], ["twice", 2], ["b", 1], ["c", 1]]
    assert of(m, "s").failed == 4


def test_a_message_without_output_moves_the_offset_too(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, exactly_once=True)
        m.publish_batch("c", range(10), payload_type=TYPE)
        assert inbox.take(10) == list(range(10))
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, exactly_once=True)
        m.publish("c", 10, payload_type=TYPE)
        assert inbox.next().payload == 10


def test_async_handlers_publish_exactly_once_too(m: Messenger, channel: str, shared_dir: Path) -> None:
    import asyncio

    async def handle(message: Message[Any]) -> None:
        await asyncio.sleep(0)

        async def inner() -> None:
            m.publish(f"{channel}-out", message.payload, payload_type=TYPE)

        await asyncio.gather(inner(), inner())
        if message.attempt == 1:
            raise ValueError

    m.subscribe(channel, "s", handle, exactly_once=True, retry_backoff=QUICK)
    m.publish_batch(channel, range(3), payload_type=TYPE)
    done(m)
    assert payloads(shared_dir, f"{channel}-out") == [0, 0, 1, 1, 2, 2]


def test_a_kind_that_changes_goes_on_at_the_same_place(data_dir: Path) -> None:
    """An id that was plain becomes exactly-once and plain again: nothing is handled twice, nothing missed."""
    with Messenger(data_dir) as m:
        m.publish("c", "before", payload_type=TYPE)
    for turn in range(6):
        with Messenger(data_dir) as m:
            inbox = Inbox()
            m.subscribe("c", "s", inbox, start="earliest", exactly_once=bool(turn % 2))
            m.publish("c", turn, payload_type=TYPE)
            if turn == 0:
                assert inbox.next().payload == "before"
            assert inbox.next().payload == turn
            done(m)


# ---- outputs that are refused


@pytest.mark.parametrize("count", [1, 40])
def test_a_refused_output_is_a_failed_attempt_and_ends_in_the_dead_letters(
    m: Messenger, channel: str, shared_dir: Path, count: int
) -> None:
    """The channel to publish to is a file. Alone and in the middle of a bundle; the others' output comes once."""
    bad = count // 2
    (shared_dir / "channels" / f"{channel}-file").write_text("mine")
    attempts = []

    def handle(message: Message[Any]) -> None:
        target = f"{channel}-file" if message.payload == bad else f"{channel}-out"
        if message.payload == bad:
            attempts.append(message.attempt)
        m.publish(target, message.payload, payload_type=TYPE)

    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.publish_batch(channel, range(count), payload_type=TYPE)
    m.subscribe(channel, "s", handle, start="earliest", exactly_once=True, max_retries=2, retry_backoff=QUICK)
    letter = dead.next().payload
    assert letter["original"]["payload"] == bad
    assert "not a directory" in letter["last_error"]
    done(m)
    assert payloads(shared_dir, f"{channel}-out") if count > 1 else True
    assert sorted(payloads(shared_dir, f"{channel}-out")) == [number for number in range(count) if number != bad]
    assert sorted(set(attempts)) == [1, 2, 3]
    assert dead.messages.empty()
    (shared_dir / "channels" / f"{channel}-file").unlink()


def test_a_refusal_that_is_mended_in_time_makes_no_dead_letter(m: Messenger, channel: str, shared_dir: Path) -> None:
    blocked = shared_dir / "channels" / f"{channel}-out"
    blocked.write_text("mine")
    inbox = Inbox()

    def handle(message: Message[Any]) -> None:
        m.publish(f"{channel}-out", message.payload, payload_type=TYPE)
        inbox(message)

    m.subscribe(channel, "s", handle, exactly_once=True, max_retries=1000, retry_backoff=QUICK)
    m.publish_batch(channel, range(5), payload_type=TYPE)
    while inbox.next().attempt < 3:
        pass
    blocked.unlink()
    done(m)
    assert payloads(shared_dir, f"{channel}-out") == list(range(5))
    assert not (shared_dir / "channels" / f"{channel}.dead-letter").exists()


def test_an_output_over_the_limit_of_a_transaction_is_a_failed_attempt(m: Messenger, channel: str) -> None:
    def handle(message: Message[Any]) -> None:
        if message.payload == "bad":
            for _ in range(8):
                m.publish(f"{channel}-out", "x" * 9_000_000, payload_type=TYPE)

    dead = Inbox()
    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", handle, exactly_once=True, max_retries=0)
    m.publish_batch(channel, ["bad", "good"], payload_type=TYPE)
    assert "MessageTooLarge" in dead.next().payload["last_error"]
    done(m)


def test_megabytes_of_output_commit_whole(m: Messenger, channel: str, shared_dir: Path) -> None:
    def handle(message: Message[Any]) -> None:
        m.publish_batch(f"{channel}-out", [message.payload * 1_000_000] * 3, payload_type=TYPE)

    m.subscribe(channel, "s", handle, exactly_once=True)
    m.publish_batch(channel, ["a", "b", "c"], payload_type=TYPE)
    done(m)
    assert [text[0] for text in payloads(shared_dir, f"{channel}-out")] == list("aaabbbccc")


# ---- what is not allowed


def test_publishing_through_another_messenger_is_an_error(m: Messenger, channel: str, shared_dir: Path) -> None:
    errors: queue.Queue[BaseException] = queue.Queue()
    with Messenger(shared_dir) as other:

        def handle(message: Message[Any]) -> None:
            for use in (
                lambda: other.publish(f"{channel}-out", 1, payload_type=TYPE),
                lambda: other.publish_batch(f"{channel}-out", [1], payload_type=TYPE),
            ):
                try:
                    use()
                except AtomicError as error:
                    errors.put(error)

        m.subscribe(channel, "s", handle, exactly_once=True)
        m.publish(channel, 1, payload_type=TYPE)
        for _ in range(2):
            assert "through the messenger that it subscribed with" in str(errors.get(timeout=DEADLINE_S))
        done(m)
    assert not (shared_dir / "channels" / f"{channel}-out").exists()


def test_atomic_inside_the_handler_is_an_error(m: Messenger, channel: str) -> None:
    dead = Inbox()

    def handle(_: Message[Any]) -> None:
        with m.atomic():
            pass

    m.subscribe(f"{channel}.dead-letter", "undertaker", dead)
    m.subscribe(channel, "s", handle, exactly_once=True, max_retries=0)
    m.publish(channel, 1, payload_type=TYPE)
    assert "a transaction already" in dead.next().payload["last_error"]


def test_publishing_after_the_handler_has_ended_is_an_error(m: Messenger, channel: str, shared_dir: Path) -> None:
    import contextvars

    go_on = threading.Event()
    outcome: queue.Queue[object] = queue.Queue()

    def late() -> None:
        go_on.wait(DEADLINE_S)
        try:
            outcome.put(m.publish(f"{channel}-out", "late", payload_type=TYPE))
        except AtomicError as error:
            outcome.put(error)

    def handle(_: Message[Any]) -> None:
        threading.Thread(target=contextvars.copy_context().run, args=(late,)).start()

    m.subscribe(channel, "s", handle, exactly_once=True)
    m.publish(channel, 1, payload_type=TYPE)
    done(m)
    go_on.set()
    assert "from a thread or task that it leaves behind" in str(outcome.get(timeout=DEADLINE_S))
    assert not (shared_dir / "channels" / f"{channel}-out").exists()


def test_a_fault_of_a_publish_is_raised_at_once(m: Messenger, channel: str) -> None:
    errors: queue.Queue[BaseException] = queue.Queue()

    def handle(_: Message[Any]) -> None:
        for payload, kind in ((object(), PayloadError), ("x" * 11_000_000, MessageTooLarge)):
            try:
                m.publish(f"{channel}-out", payload, payload_type=TYPE)
            except kind as error:
                errors.put(error)

    m.subscribe(channel, "s", handle, exactly_once=True)
    m.publish(channel, 1, payload_type=TYPE)
    assert isinstance(errors.get(timeout=DEADLINE_S), PayloadError)
    assert isinstance(errors.get(timeout=DEADLINE_S), MessageTooLarge)


def test_a_child_that_a_handler_forks_is_not_in_its_transaction(data_dir: Path) -> None:
    source = """
        m = Messenger(data_dir)
        def handle(message):
            pid = os.fork()
            if pid == 0:
                try:
                    m.publish("out", "by the child", payload_type="t")
                except AtomicError as error:
                    say("refused")
                os._exit(0)
            os.waitpid(pid, 0)
            m.publish("out", "by the parent", payload_type="t")
        m.subscribe("c", "s", handle, exactly_once=True)
        m.publish("c", 1, payload_type="t")
        say("ready")
        m.run()
    """
    with Child(source, data_dir) as child:
        assert {child.hear(), child.hear()} == {"ready", "refused"}
        eventually(lambda: payloads(data_dir, "out"))
        child.kill()
    with Messenger(data_dir):
        pass
    assert payloads(data_dir, "out") == ["by the parent"]


# ---- deaths

STAGE = """
    m = Messenger(data_dir)
    source, target = sys.argv[2:4]
    def handle(message):
        m.publish(target, message.payload, payload_type="t")
    for _ in range(200):
        try:
            m.subscribe(source, "stage", handle, start="earliest", exactly_once=True)
            break
        except SubscriberBusy:
            time.sleep(0.01)
    say("ready")
    m.run()
"""


def test_a_chain_of_three_under_kills_gives_each_input_one_output(data_dir: Path) -> None:
    """Subscribers of every stage and the writer are killed in turn while 3,000 messages go through."""
    total = 3000
    chain = [("a", "b"), ("b", "c"), ("c", "d")]
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("d", "end", inbox)
        stages = [Child(STAGE, data_dir, *names) for names in chain]
        try:
            for stage in stages:
                stage.expect("ready")

            def feed() -> None:
                for start in range(0, total, 20):
                    m.publish_batch("a", range(start, start + 20), payload_type=TYPE)

            feeder = threading.Thread(target=feed)
            feeder.start()
            arrived: list[int] = []
            for turn in range(9):
                while len(arrived) < (turn + 1) * 200:
                    arrived.append(inbox.next().payload)
                if turn % 3 == 2:
                    kill_writer(data_dir)
                victim = turn % 3
                stages[victim].kill()
                stages[victim].__exit__()
                stages[victim] = Child(STAGE, data_dir, *chain[victim])
                stages[victim].expect("ready")
            feeder.join(DEADLINE_S)
            while len(arrived) < total:
                arrived.append(inbox.next().payload)
        finally:
            for stage in stages:
                stage.signal(signal.SIGTERM)
                stage.__exit__()
        assert arrived == list(range(total))
    for channel in "abcd":
        assert payloads(data_dir, channel) == list(range(total))
        assert not (data_dir / "channels" / f"{channel}.dead-letter").exists()


def test_a_killed_predecessors_transactions_in_the_ring_take_effect_once(data_dir: Path) -> None:
    """The writer is stopped while a relay handles its backlog: its bundles stand in its ring when it is killed."""
    source = """
        m = Messenger(data_dir)
        seen = 0
        def handle(message):
            global seen
            m.publish("out", message.payload, payload_type="t")
            seen += 1
            if seen == 1:
                say("first"); hear()
            if seen == 600:
                say("many")
        m.subscribe("in", "relay", handle, start="earliest", exactly_once=True)
        m.run()
    """
    total = 2000
    with Messenger(data_dir) as m:
        m.publish_batch("in", range(total), payload_type=TYPE)
        pid = writer_pid(data_dir)
        assert pid is not None
        with Child(source, data_dir) as child:
            child.expect("first")
            freeze(pid)
            child.say("go on")
            child.expect("many")
            child.kill()
        os.kill(pid, signal.SIGKILL)
        inbox = Inbox()
        m.subscribe("out", "end", inbox, start="earliest")
        relay(m, "in", "out")
        assert inbox.take(total) == list(range(total))
        done(m)
        assert inbox.messages.empty()
    assert payloads(data_dir, "out") == list(range(total))


def test_a_process_that_was_thought_dead_cannot_move_the_offset(data_dir: Path) -> None:
    """What it sends after another took over is refused whole: it does not hold the subscription any more."""
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("in", "s", inbox, exactly_once=True)
        m.publish("in", 1, payload_type=TYPE)
        inbox.next()
        done(m)
        (subscription,) = m._subscriptions.values()
        with Messenger(data_dir) as other:
            before = payloads(data_dir, "in")
            from keyop.protocol import entry

            line = b'{"v":1}\n'
            move = entry.encode(
                entry.CURSOR, b"in", b"s", flags=entry.EXACTLY_ONCE, data=entry.CURSOR_MOVE.pack(0, 99, 0)
            )
            append = entry.encode(entry.APPEND, b"in", data=line)
            with pytest.raises(PublishRefused, match="does not hold the subscription"):
                other._attachment.transact(entry.TRANSACTION.pack(0) + append + move, "in")
            with pytest.raises(PublishRefused, match="another process took over"):
                m._attachment.transact(entry.TRANSACTION.pack(0) + append + move, "in")
            assert payloads(data_dir, "in") == before
        assert subscription.offset > 0
