"""Dead letters: what is listed, what is put back for whom, and commands that are killed or repeated."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, kill_writer
from conftest import end_writer
from inbox import Inbox
from test_cli import Cli
from writers import TINY, Writer

from keyop import Message, Messenger, RetryLater, SubscriberBusy, follow
from keyop.aio import Messenger as AsyncMessenger
from keyop.configuration.lookup import settings_for
from keyop.inspection.dead_letters import DeadLetter, DeadLetters, Selection
from keyop.maintenance.dead_letter_office import DeadLetterOffice
from keyop.messages.dead_letter import DONE_TYPE
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments

ONCE = {"max_retries": 0, "retry_backoff": (0.01, 0.01)}


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


def letters(data_dir: Path, *, done: bool = False) -> list[DeadLetter]:
    return list(DeadLetters(DataDirectory(data_dir), "c").select(Selection(done=done)))


def fail(_message: Message[Any]) -> None:
    raise ConnectionError("no route to host")


def make_letters(data_dir: Path, count: int, *, id: str = "s", handler: Callable[..., None] = fail) -> None:
    """Have a subscriber give up on so many messages."""
    before = len(letters(data_dir, done=True)) if data_dir.exists() else 0
    with Messenger(data_dir) as m:
        m.subscribe("c", id, handler, **ONCE)
        m.publish_batch("c", range(count), payload_type="t", service_name="shop")
        eventually(lambda: len(letters(data_dir, done=True)) == before + count)


# ---- put back


def test_the_subscriber_that_failed_gets_it_again_and_others_do_not(data_dir: Path, cli: Cli) -> None:
    down = [True]

    def work(message: Message[Any]) -> None:
        if down[0]:
            fail(message)

    failing, other = Inbox(work), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", failing, **ONCE)
        m.subscribe("c", "other", other)
        sent = [m.publish("c", n, payload_type="t", correlation_id="k", service_name="shop") for n in range(3)]
        assert failing.take(3) == other.take(3) == [0, 1, 2]
        eventually(lambda: len(letters(data_dir)) == 3)
        down[0] = False
        assert "3 put back" in cli("dead-letter", "replay", "c", "--yes").stdout
        again = [failing.next() for _ in range(3)]
        assert [message.id for message in again] == sent
        message = again[0]
        assert (message.channel, message.payload, message.attempt) == ("c", 0, 1)
        assert (message.correlation_id, message.service_name, message.payload_type) == ("k", "shop", "t")
        m.publish("c", 3, payload_type="t")
        assert failing.take(1) == other.take(1) == [3]
        assert not letters(data_dir)
        (statistics,) = [each for each in m.stats().subscribers if each.id == "s"]
        eventually(lambda: next(each for each in m.stats().subscribers if each.id == "s").handled == 4)
        assert statistics.dead_lettered == 3


def test_what_was_put_back_comes_to_a_subscriber_that_starts_later(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 2)
    cli("dead-letter", "replay", "c", "--yes")
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.take(2) == [0, 1]
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        m.publish("c", "new", payload_type="t")
        assert inbox.take(1) == ["new"]


def test_it_fails_again_and_is_put_back_again(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 1)
    (first,) = letters(data_dir)
    cli("dead-letter", "replay", "c", "--yes")
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", fail, **ONCE)
        eventually(lambda: len(letters(data_dir)) == 1)
    (second,) = letters(data_dir)
    assert (second.message_id, second.replay_of, second.subscriber) == (first.message_id, first.id, "s")
    assert second.id != first.id
    assert "Put back:     once before" in cli("dead-letter", "show", "c").stdout
    cli("dead-letter", "replay", "c", "--yes")
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.next().id == first.message_id
    (_, line) = data_lines(data_dir, "c.replay")
    assert json.loads(line)["replay"] == second.id
    assert line.count(b'"replay_for"') == 1


def data_lines(data_dir: Path, channel: str) -> list[bytes]:
    segments = list_segments(DataDirectory(data_dir).channel(channel))[0]
    return b"".join(segment.path.read_bytes() for segment in segments).splitlines()


def test_a_busy_subscriber_takes_it_between_two_messages(data_dir: Path, cli: Cli) -> None:
    """With a backlog that was read at once, while a handler is at its first message; also when it is not the first."""
    make_letters(data_dir, 2)
    seen: list[Any] = []

    def work(message: Message[Any]) -> None:
        if message.payload in (10, 20):
            cli("dead-letter", "replay", "c", "--id", letters(data_dir)[0].id)
            ticks = m._attachment.ticks
            eventually(lambda: m._attachment.ticks > ticks + 1)
        seen.append(message.payload)

    with Messenger(data_dir) as m:
        m.publish_batch("c", range(10, 2000), payload_type="t")
        m.subscribe("c", "s", work)
        eventually(lambda: 1999 in seen)
    assert seen == [10, 0, *range(11, 21), 1, *range(21, 2000)]


def test_exactly_once(data_dir: Path, cli: Cli) -> None:
    """What is put back is handled exactly once as well: its output and the step to the next are one transaction."""
    down = [True]
    with Messenger(data_dir) as m:

        def convert(message: Message[Any]) -> None:
            m.publish("out", message.payload, payload_type="t")
            if down[0]:
                fail(message)

        m.subscribe("c", "s", convert, exactly_once=True, **ONCE)
        m.publish_batch("c", range(50), payload_type="t")
        eventually(lambda: len(letters(data_dir)) == 50)
        down[0] = False
        cli("dead-letter", "replay", "c", "--yes")
        eventually(lambda: len(data_lines(data_dir, "out")) == 50)
        m.publish("c", 50, payload_type="t")
        eventually(lambda: len(data_lines(data_dir, "out")) == 51)
    out = [message.payload for message in follow(data_dir, "out", "earliest", wait=False)]
    assert out == list(range(51))


def test_exactly_once_under_kill(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 200)
    cli("dead-letter", "replay", "c", "--yes")
    source = """
        m = Messenger(data_dir)
        def pass_on(message):
            m.publish("out", message.payload, payload_type="t")
            time.sleep(0.002)
        m.subscribe("c", "s", pass_on, exactly_once=True)
        say("ready")
        hear()
        m.close()
        say("closed")
    """
    for step in (20, 90, 150):
        with Child(source, data_dir) as child:
            child.expect("ready")
            eventually(lambda step=step: len(data_lines(data_dir, "out")) >= step)  # type: ignore[misc]
            child.kill()
    with Child(source, data_dir) as child:
        child.expect("ready")
        eventually(lambda: len(data_lines(data_dir, "out")) >= 200)
        child.say()
        child.expect("closed")
    out = [message.payload for message in follow(data_dir, "out", "earliest", wait=False)]
    assert out == list(range(200))


def test_unsubscribe_forgets_what_was_put_back(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 1)
    inbox = Inbox()
    directory = DataDirectory(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        cli("dead-letter", "replay", "c", "--yes")
        assert inbox.take(1) == [0]
        assert directory.offset_file("c.replay", "s").exists()
        m.unsubscribe("c", "s")
        assert not directory.offset_file("c.replay", "s").exists()
        m.subscribe("c", "s", inbox, start="latest")
        m.publish("c", "new", payload_type="t")
        assert inbox.take(1) == ["new"]


def test_a_subscriber_that_is_forgotten_by_command(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 1)
    cli("dead-letter", "replay", "c", "--yes")
    cli("offsets", "forget", "c", "s", "--yes")
    directory = DataDirectory(data_dir)
    assert not directory.offset_file("c", "s").exists()
    assert not directory.offset_file("c.replay", "s").exists()
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        m.publish("c", "new", payload_type="t")
        assert inbox.take(1) == ["new"]


def test_retries_and_later_for_what_was_put_back(data_dir: Path, cli: Cli) -> None:
    """As for any other message: an attempt that fails is tried again, and a killed process's attempt is counted."""
    make_letters(data_dir, 1)
    cli("dead-letter", "replay", "c", "--yes")
    source = """
        m = Messenger(data_dir)
        m.subscribe("c", "s", lambda message: os.kill(os.getpid(), 9))
        hear()
    """
    with Child(source, data_dir) as child:
        assert child.end() == -9
    attempts = []

    def work(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt == 2:
            raise OSError("not yet")
        if len(attempts) == 2:
            raise RetryLater

    inbox = Inbox(work)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, retry_backoff=(0.01, 0.01))
        for _ in range(3):
            inbox.next()
        m.publish("c", "new", payload_type="t")
        assert inbox.take(1) == ["new"]
    assert attempts == [2, 3, 1, 1]


def test_a_subscription_that_nothing_was_put_back_for_opens_no_file(data_dir: Path) -> None:
    make_letters(data_dir, 1)
    assert not (data_dir / "subscribers" / "c.replay").exists()
    assert not (data_dir / "channels" / "c.replay").exists()


def test_no_file_is_looked_at_while_nothing_is_put_back(data_dir: Path) -> None:
    """Neither for a message nor with a tick: what says that there is news is the board."""

    class Spy:
        looks = 0

        def exists(self) -> bool:
            self.looks += 1
            return False

    inbox, spy = Inbox(), Spy()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        (subscription,) = m._subscriptions.values()
        subscription.replays._file = spy  # type: ignore[assignment, union-attr]
        for number in range(300):
            m.publish("c", number, payload_type="t")
        assert inbox.take(300) == list(range(300))
        ticks = m._attachment.ticks
        eventually(lambda: m._attachment.ticks > ticks + 2)
        assert spy.looks == 0
        kill_writer(data_dir)  # of a new writer's board nobody knows what it does not say any more
        eventually(lambda: spy.looks == 1)


def test_the_writer_dies_before_a_running_subscriber_has_looked(data_dir: Path) -> None:
    make_letters(data_dir, 1)
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        ticks = m._attachment.ticks
        eventually(lambda: m._attachment.ticks > ticks)  # half a second until the next one
        with DeadLetterOffice(settings_for(data_dir), "c") as office:
            assert office.replay(Selection()).done == 1
            kill_writer(data_dir)
        assert inbox.take(1) == [0]


def test_asyncio(data_dir: Path, cli: Cli) -> None:
    async def main() -> list[Any]:
        got: list[Any] = []
        both = asyncio.Event()

        async def handle(message: Message[Any]) -> None:
            got.append(message.payload)
            if len(got) == 2:
                both.set()

        async with AsyncMessenger(data_dir) as m:
            await m.subscribe("c", "s", handle)
            await asyncio.to_thread(cli, "dead-letter", "replay", "c", "--yes")
            await asyncio.wait_for(both.wait(), 20)
        return got

    make_letters(data_dir, 2)
    assert asyncio.run(main()) == [0, 1]


# ---- killed, repeated, two at once


@pytest.mark.parametrize(
    "step", ["frame.written:1", "frame.synced:1", "segment.written:1", "segment.written:2", "applied:1", "settled:1"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_writer_is_killed_while_it_puts_back(data_dir: Path, cli: Cli, step: str, count: int) -> None:
    """At every step of each of the frames that the command needs; the command goes on with the next writer."""
    make_letters(data_dir, 3)
    end_writer(data_dir)
    name, _, number = step.partition(":")
    env = {"KEYOP_CRASH_AT": f"{name}:{int(number) + count - 1}"}
    with Writer(data_dir, on_demand=True, env=env, idle_exit=0.2, **TINY) as writer:
        cli("dead-letter", "replay", "c", "--yes")
        eventually(lambda: writer.process.poll() is not None)
    assert not letters(data_dir)
    assert len(data_lines(data_dir, "c.replay")) == 3
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.take(3) == [0, 1, 2]


def test_the_command_is_killed_and_given_again(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 400)
    source = """
        from keyop.maintenance import dead_letter_office as office
        from keyop.inspection.dead_letters import Selection
        office._BATCH_LETTERS = 1
        with office.DeadLetterOffice(settings_for(data_dir), "c") as at_work:
            say("ready")
            at_work.replay(Selection(), lambda done: say(done))
    """
    for kills in (3, 40, 100):
        with Child(source, data_dir) as child:
            child.expect("ready")
            for _ in range(kills):
                child.hear()
            child.kill()
    cli("dead-letter", "replay", "c", "--yes")
    assert "0 put back" in cli("dead-letter", "replay", "c", "--yes").stdout
    replayed = [json.loads(line)["payload"] for line in data_lines(data_dir, "c.replay")]
    assert replayed == list(range(400))
    assert not (data_dir / "subscribers" / "c.dead-letter" / "dead-letter-command.offset").exists()


def test_two_at_once(data_dir: Path) -> None:
    make_letters(data_dir, 1)
    said = f"another .keyop dead-letter. works on channel 'c'.*{os.getpid()}"
    with DeadLetterOffice(settings_for(data_dir), "c"), pytest.raises(SubscriberBusy, match=said):
        DeadLetterOffice(settings_for(data_dir), "c")


# ---- marks


def test_handlers_of_dead_letters_do_not_see_marks_and_readers_do(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 2)
    first = letters(data_dir)[0]
    cli("dead-letter", "discard", "c", "--id", first.id)
    cli("dead-letter", "replay", "c", "--yes")
    make_letters(data_dir, 1, id="other")
    inbox, exactly = Inbox(), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.dead-letter", "report", inbox, start="earliest")
        m.subscribe("c.dead-letter", "exact", exactly, start="earliest", exactly_once=True)
        for each in (inbox, exactly):
            assert [letter["original"]["payload"] for letter in each.take(3)] == [0, 1, 0]
        m.drain(5)
    everything = list(follow(data_dir, "c.dead-letter", "earliest", wait=False))
    marks = [message for message in everything if message.payload_type == DONE_TYPE]
    assert [mark.payload for mark in marks] == [
        {"dead_letter": first.id, "action": "discarded"},
        {"dead_letter": everything[1].id, "action": "replayed"},
    ]
    out = cli("consume", "c.dead-letter", "--id", "cli", "--start", "earliest", "--count", 3).stdout.splitlines()
    assert [json.loads(line)["payload"]["last_error"] for line in out] == ["ConnectionError: no route to host"] * 3
    assert cli.json("verify")["clean"]


# ---- listing and choosing


def test_list_and_show(data_dir: Path, cli: Cli) -> None:
    assert "there is no channel" in cli("dead-letter", "list", "c", code=1).stderr if data_dir.exists() else True
    make_letters(data_dir, 2)
    make_letters(data_dir, 1, id="other", handler=lambda message: {}["x"])
    listed = cli.json("dead-letter", "list", "c")
    assert [(each["subscriber"], each["error"], each["state"]) for each in listed] == [
        ("s", "ConnectionError: no route to host", "open"),
        ("s", "ConnectionError: no route to host", "open"),
        ("other", "KeyError: 'x'", "open"),
    ]
    text = cli("dead-letter", "list", "c.dead-letter").stdout
    assert "3 open: 2 s, 1 other\n       2 ConnectionError: no route to host\n       1 KeyError: 'x'\n" in text
    assert listed[0]["id"] in text
    (one,) = cli.json("dead-letter", "list", "c", "--error", "^KeyError")
    shown = cli("dead-letter", "show", "c", "--id", one["id"]).stdout
    assert "KeyError: 'x'" in shown
    assert '"payload": 0' in shown
    (line,) = cli(
        "dead-letter", "show", "c", "--id", one["message_id"], "--subscriber", "other", "--json"
    ).stdout.splitlines()
    assert json.loads(line)["original"]["payload"] == 0
    assert cli.json("dead-letter", "list", "c", "--since", "2000-01-01") == listed
    assert cli.json("dead-letter", "list", "c", "--since", "2100-01-01") == []
    assert "1 discarded" in cli("dead-letter", "discard", "c", "--subscriber", "other", "--yes").stdout
    done = cli("dead-letter", "show", "c", "--subscriber", "other")
    assert done.stdout == ""
    assert "channel c: there is no such dead letter that is open; --all shows" in done.stderr
    assert len(cli.json("dead-letter", "list", "c")) == 2
    assert [each["state"] for each in cli.json("dead-letter", "list", "c", "--all")] == ["open", "open", "discarded"]
    assert "2 open, 1 discarded" in cli("dead-letter", "list", "c", "--all").stdout
    assert cli.json("dead-letter", "replay", "c", "--id", one["id"]) == {"done": 0, "failed": []}


def test_wrong_usage(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 1)
    assert "say --yes" in cli("dead-letter", "replay", "c", code=2).stderr
    assert "no regular expression" in cli("dead-letter", "list", "c", "--error", "(", code=2).stderr
    assert "how long ago" in cli("dead-letter", "list", "c", "--since", "latest", code=2).stderr
    missing = cli("dead-letter", "replay", "c", "--id", "nobody", code=1)
    assert "no such dead letter: nobody" in missing.stderr
    assert "there is no channel 'x'" in cli("dead-letter", "list", "x", code=1).stderr
    assert len(letters(data_dir)) == 1


# ---- what cannot be put back


def append_letter(data_dir: Path, original: object, **more: object) -> None:
    """A dead letter as the Go program, or one of ours that has no room, writes it."""
    payload = {"original": original, "retries": 1, "last_error": "e", "failed_at": "2026-01-01T00:00:00Z", **more}
    envelope = {
        "v": 1,
        "id": f"0195fd0c-0000-7000-8000-{len(data_lines(data_dir, 'c.dead-letter')):012}",
        "ts": "2026-01-01T00:00:00Z",
        "channel": "c.dead-letter",
        "origin": "h",
        "payload_type": "com.keyop.messenger.DeadLetterPayload",
        "payload": payload,
    }
    end_writer(data_dir)
    path = DataDirectory(data_dir).channel("c.dead-letter") / f"{0:020}.jsonl"
    with path.open("ab") as file:
        file.write(json.dumps(envelope).encode() + b"\n")


def test_originals_that_cannot_be_had(data_dir: Path, cli: Cli) -> None:
    """A sentence for each, exit code 1; all others are put back."""
    make_letters(data_dir, 1)
    append_letter(data_dir, None, subscriber="s")
    (first,) = data_lines(data_dir, "c")
    whole = json.loads(first)
    partial = {key: value for key, value in whole.items() if key != "payload"}
    append_letter(data_dir, partial, subscriber="s", original_offset=0)
    append_letter(data_dir, {**partial, "id": "another"}, subscriber="s", original_offset=0)
    append_letter(data_dir, partial, subscriber="s", original_offset=7)
    append_letter(data_dir, whole, subscriber="gone")
    append_letter(data_dir, whole)
    failed = {each["id"]: each["why"] for each in cli.json("dead-letter", "replay", "c", "--yes", code=1)["failed"]}
    long = "the message was too long for its dead letter, and at its place"
    assert [why.split(":")[0] for why in failed.values()] == [
        "the message was damaged when it failed, and there is no original of it",
        f"{long} (channel c, offset 0) it cannot be read any more",
        f"{long} (channel c, offset 7) it cannot be read any more",
        "channel 'c' has no subscriber 'gone' (any more)",
    ]
    assert len(letters(data_dir)) == 4
    assert [json.loads(line)["payload"] for line in data_lines(data_dir, "c.replay")] == [0, 0, 0]
    assert len({json.loads(line)["replay"] for line in data_lines(data_dir, "c.replay")}) == 3
    assert "cannot be read any more" in cli("dead-letter", "show", "c", code=1).stdout


def test_a_letter_that_names_nobody_needs_to_be_told_for_whom(data_dir: Path, cli: Cli) -> None:
    make_letters(data_dir, 1)
    with Messenger(data_dir) as m:
        m.subscribe("c", "second", print)
    whole = json.loads(data_lines(data_dir, "c")[0])
    append_letter(data_dir, whole)
    done = cli("dead-letter", "replay", "c", "--yes", code=1)
    assert "it names no subscriber, and the channel has s, second: say for whom, with --subscriber" in done.stderr
    assert "1 put back" in cli("dead-letter", "replay", "c", "--subscriber", "second", "--yes").stdout
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "second", inbox)
        assert inbox.take(1) == [0]


def test_an_original_that_was_too_long_for_its_letter(data_dir: Path, cli: Cli) -> None:
    """It is taken from the channel, and if it fails again, from the replay channel."""
    big = "x" * 10_485_300
    for _ in range(2):
        with Messenger(data_dir) as m:
            m.subscribe("c", "s", fail, start="earliest", **ONCE)
            if not data_lines(data_dir, "c"):
                m.publish("c", big, payload_type="t")
            eventually(lambda: len(letters(data_dir)) == 1)
        (letter,) = letters(data_dir)
        assert letter.stands_at is not None
        assert "1 put back" in cli("dead-letter", "replay", "c", "--yes").stdout
    assert letter.stands_at[0] == "c.replay"
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.next().payload == big
