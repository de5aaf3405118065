"""``keyop channel delete``: whole or gone, whoever dies; nothing of the old channel reaches into a new one."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, Child, eventually
from conftest import end_writer
from inbox import Inbox
from test_cli import Cli
from writers import TINY, Writer

from keyop import Message, Messenger, PublishRefused, SubscriberBusy, follow
from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import HeldCursor
from keyop.configuration.lookup import settings_for
from keyop.ipc import layout
from keyop.maintenance.channel_deletion import delete_channel
from keyop.names import dead_letter_channel
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


def payloads(data_dir: Path, channel: str = "c") -> list[Any]:
    return [message.payload for message in follow(data_dir, channel, "earliest", wait=False)]


def left(data_dir: Path) -> list[str]:
    """What lies in channels/ and subscribers/."""
    return sorted(path.name for part in ("channels", "subscribers") for path in (data_dir / part).iterdir())


def fill(data_dir: Path, count: int = 30, *, channel: str = "c", id: str = "s") -> None:
    """So many messages of 300 bytes, half of them handled."""
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe(channel, id, inbox)
        m.publish_batch(channel, [{"n": n, "pad": "x" * 100} for n in range(count // 2)], payload_type="t")
        inbox.take(count // 2)
    with Messenger(data_dir) as m:
        m.publish_batch(channel, [{"n": n, "pad": "x" * 100} for n in range(count // 2, count)], payload_type="t")


def test_deleted_and_made_anew(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    fill(data_dir, channel="other")
    assert "say --yes" in cli("channel", "delete", "c", code=2).stderr
    done = cli("channel", "delete", "c", "--yes")
    assert done.stdout.startswith("c: deleted, ")
    assert "1 offsets" in done.stdout
    eventually(lambda: left(data_dir) == ["other", "other"])
    assert [each["channel"] for each in cli.json("channels")] == ["other"]
    assert "there is no channel 'c'" in cli("channel", "delete", "c", "--yes", code=1).stderr
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.publish("c", "new", payload_type="t")
        m.subscribe("c", "s", inbox, start="earliest")
        message = inbox.next()
        assert (message.payload, message.offset) == ("new", 0)
    assert payloads(data_dir) == ["new"]
    assert len(payloads(data_dir, "other")) == 30
    assert cli.json("verify")["clean"]


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0)])
def test_it_asks_at_a_terminal(data_dir: Path, cli: Cli, answer: str, code: int) -> None:
    fill(data_dir)
    master, slave = pty.openpty()
    os.write(master, f"{answer}\n".encode())
    command = [sys.executable, "-m", "keyop.cli", "channel", "delete", "c"]
    done = subprocess.run(command, stdin=slave, capture_output=True, text=True, env=cli.env, timeout=20, check=False)
    os.close(master)
    os.close(slave)
    assert done.returncode == code, done
    assert "Delete channel c, " in done.stderr
    assert "and where s stand?" in done.stderr
    assert (data_dir / "channels" / "c").exists() == bool(code)


@pytest.mark.parametrize("writer_runs", [True, False])
def test_a_new_channel_begins_at_0_for_old_names_too(data_dir: Path, cli: Cli, writer_runs: bool) -> None:
    """No offset, no attempts, no dead letter's cursor of the old one count."""
    fill(data_dir)
    source = """
        m = Messenger(data_dir)
        m.subscribe("c", "s", lambda message: os.kill(os.getpid(), 9))
        hear()
    """
    with Child(source, data_dir) as child:
        assert child.end() == -9
    if not writer_runs:
        end_writer(data_dir)
    cli("channel", "delete", "c", "--yes")
    with Messenger(data_dir) as m:
        m.publish_batch("c", range(3), payload_type="t")
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, start="earliest")
        first = inbox.next()
        assert (first.payload, first.attempt) == (0, 1)
        assert inbox.take(2) == [1, 2]


def test_what_was_put_back_goes_along_and_dead_letters_stay(data_dir: Path, cli: Cli) -> None:
    def fail(message: Message[Any]) -> None:
        raise OSError("no")

    with Messenger(data_dir) as m:
        m.subscribe("c", "s", fail, max_retries=0)
        m.publish("c", 1, payload_type="t")
        eventually(lambda: (data_dir / "channels" / "c.dead-letter").is_dir() and payloads(data_dir, "c.dead-letter"))
    cli("dead-letter", "replay", "c", "--yes")
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", fail, max_retries=0)
        m.drain(timeout=DEADLINE_S)
        said = cli("channel", "delete", "c", "--yes", code=1).stderr
        assert f"in use by s (pid {os.getpid()}); stop" in said  # once, although it takes c.replay as well
    assert "its dead letters stay: c.dead-letter" in cli("channel", "delete", "c", "--yes").stderr
    eventually(lambda: left(data_dir) == ["c.dead-letter", "c.dead-letter"])
    cli("channel", "delete", "c.dead-letter", "--yes")
    eventually(lambda: left(data_dir) == [])


# ---- under somebody


def test_a_running_subscriber_is_named(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print)
        said = cli("channel", "delete", "c", "--yes", code=1).stderr
        assert f"channel 'c' is in use by s (pid {os.getpid()}); stop them first, or use --force" in said
        # The writer has the last word.
        attachment = Attachment(settings_for(data_dir))
        with pytest.raises(SubscriberBusy):
            attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.DELETE, b"c"), "c")
        attachment.close()
        assert len(payloads(data_dir)) == 30


@pytest.mark.parametrize("exactly_once", [False, True])
def test_by_force_the_subscriber_says_so_and_begins_anew(
    data_dir: Path, cli: Cli, exactly_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fill(data_dir)
    inbox, other = Inbox(), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, exactly_once=exactly_once)
        m.subscribe("other", "s", other, exactly_once=exactly_once)
        assert [payload["n"] for payload in inbox.take(15)] == list(range(15, 30))
        m.drain(5)
        cli("channel", "delete", "c", "--force", "--yes")
        said = "c/s: the channel was deleted; this subscriber begins anew, with what was published since"
        eventually(lambda: said in caplog.text)
        m.publish_batch("c", range(3), payload_type="t")
        m.publish_batch("other", range(3), payload_type="t")
        assert inbox.take(3) == other.take(3) == [0, 1, 2]
        assert m.drain(5)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, exactly_once=exactly_once)
        m.publish("c", 3, payload_type="t")
        assert inbox.take(1) == [3]
        assert m.drain(5)
    assert inbox.messages.empty()
    assert payloads(data_dir) == [0, 1, 2, 3]


def test_by_force_under_a_handler_that_is_busy_with_a_backlog(data_dir: Path, cli: Cli) -> None:
    """It does not go through all that was read before, and what is new is not passed over."""
    with Messenger(data_dir) as m:
        m.publish_batch("c", [{"old": n} for n in range(5000)], payload_type="t")
    seen: list[Any] = []

    def work(message: Message[Any]) -> None:
        if len(seen) == 3:
            cli("channel", "delete", "c", "--force", "--yes")
            m.publish_batch("c", [{"new": n} for n in range(5000)], payload_type="t")
            ticks = m._attachment.ticks
            eventually(lambda: m._attachment.ticks > ticks + 1)
        seen.append(message.payload)

    with Messenger(data_dir) as m:
        m.subscribe("c", "s", work, start="earliest")
        eventually(lambda: {"new": 4999} in seen)
    assert seen == [{"old": n} for n in range(4)] + [{"new": n} for n in range(5000)]


def test_by_force_under_a_message_that_is_tried_again(
    data_dir: Path, cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    seen: list[Any] = []

    def work(message: Message[Any]) -> None:
        seen.append(message.payload)
        if message.payload == "bad":
            raise OSError("no")

    with Messenger(data_dir) as m:
        m.subscribe("c", "s", work, max_retries=1000, retry_backoff=(0.01, 0.01))
        m.publish("c", "bad", payload_type="t")
        eventually(lambda: len(seen) > 3)
        cli("channel", "delete", "c", "--force", "--yes")
        m.publish("c", "good", payload_type="t")
        eventually(lambda: "good" in seen)
        m.drain(5)
    assert "begins anew" in caplog.text
    assert not (data_dir / "channels" / dead_letter_channel("c")).exists()


def test_a_process_that_stood_still_meanwhile(data_dir: Path, cli: Cli) -> None:
    """A child under SIGSTOP hears of it when it goes on."""
    fill(data_dir)
    source = """
        import logging
        m = Messenger(data_dir)
        m.subscribe("c", "s", lambda message: say(message.payload if message.offset == 0 else "later"))
        say("ready")
        hear()
        m.close()
    """
    with Child(source, data_dir) as child:
        lines = [child.hear() for _ in range(16)]
        assert "ready" in lines
        import signal

        child.signal(signal.SIGSTOP)
        cli("channel", "delete", "c", "--force", "--yes")
        with Messenger(data_dir) as m:
            m.publish("c", "new", payload_type="t")
        child.signal(signal.SIGCONT)
        child.expect("new")
        child.say()
        assert child.end() == 0
        assert "begins anew" in child.errors


def test_under_a_hub_there_is_no_force(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    attachment = Attachment(settings_for(data_dir), role=layout.ROLE_HUB)
    held = HeldCursor(attachment, "c", "fed-garage")
    held.open(0)
    said = cli("channel", "delete", "c", "--force", "--yes", code=1).stderr
    assert f"in use by fed-garage (pid {os.getpid()}); stop hub and client first" in said
    other = Attachment(settings_for(data_dir))
    with pytest.raises(SubscriberBusy):
        other.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.DELETE, b"c", flags=entry.FORCE), "c")
    other.close()
    held.close()
    attachment.close()
    cli("channel", "delete", "c", "--yes")
    assert not (data_dir / "subscribers" / "c").exists()


def test_publishers_go_on_meanwhile(data_dir: Path) -> None:
    """Every message stands once, before or after: deletions under load lose nothing that was published since."""
    source = """
        m = Messenger(data_dir)
        number = 0
        while True:
            m.publish("busy", {"n": number}, payload_type="t")
            m.publish("c", {"n": number}, payload_type="t")
            number += 1
            if number % 50 == 0:
                say(number)
    """
    with Writer(data_dir, on_demand=True, idle_exit=0.2, **TINY), Child(source, data_dir) as child:
        for _ in range(8):
            child.hear()
            delete_channel(settings_for(data_dir), "c")
        child.hear()
        child.kill()
    end_writer(data_dir)
    numbers = [payload["n"] for payload in payloads(data_dir)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] > 100
    busy = [payload["n"] for payload in payloads(data_dir, "busy")]
    assert busy == list(range(busy[0], busy[-1] + 1))


# ---- crashes


STEPS = [
    "checkpoint.synced:1",
    "free.zeroed:1",
    "free.synced:1",
    "checkpoint.freed:1",
    "frame.written:1",
    "frame.synced:1",
    "deletion.put_away:1",
    "deletion.put_away:2",
    "deletion.put_away:3",
    "deletion.put_away:4",
    "applied:1",
    "settled:1",
    "checkpoint.freed:2",
    "deletion.removed:1",
    "deletion.removed:3",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("recovery", ["", "deletion.put_away:1", "deletion.put_away:2", "recovery.freed:1"])
def test_the_writer_is_killed_at_a_step(data_dir: Path, step: str, recovery: str) -> None:
    """The command goes on with the next writer, and even if that one is killed as well. Then it is gone, whole."""
    fill(data_dir)
    end_writer(data_dir)
    env = {"KEYOP_CRASH_AT": step}
    with Writer(data_dir, on_demand=True, env=env, idle_exit=0.2, **TINY) as writer, Messenger(data_dir) as m:
        m.publish("other", 1, payload_type="t")  # the journal is in use: there is something to be freed before
        attachment = Attachment(settings_for(data_dir))
        spawners = [each._spawner for each in (m._attachment, attachment)]
        for spawner in spawners if recovery else []:
            spawner.spawn = lambda: False  # type: ignore[method-assign]  # the next one is the test's
        position = attachment.send(
            entry.TRANSACTION.pack(entry.SYNC)
            + entry.encode(entry.DELETE, b"c")
            + entry.encode(entry.DELETE, b"c.replay")
        )
        writer.process.wait(20)
        if recovery:
            Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": recovery}, **TINY).settled()
            for spawner in spawners:
                del spawner.spawn
        attachment.wait(position)
        attachment.close()
        m.publish_batch("c", range(3), payload_type="t")
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest")
        assert inbox.take(3) == [0, 1, 2]
        m.drain(5)
    assert payloads(data_dir) == [0, 1, 2]
    assert payloads(data_dir, "other") == [1]
    end_writer(data_dir)
    assert [name for name in left(data_dir) if name.startswith(".")] == []


@pytest.mark.parametrize("step", ["checkpoint.segments_synced:2", "checkpoint.synced:2", "frame.synced:3", "applied:3"])
def test_killed_when_the_new_channel_has_messages(data_dir: Path, step: str) -> None:
    """The frame of the deletion may be replayed then: what is new stays, and stands there once."""
    fill(data_dir, 60)
    end_writer(data_dir)
    with Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY) as writer, Messenger(data_dir) as m:
        m.publish("other", 1, payload_type="t")
        attachment = m._attachment
        lines = [m._publisher.prepare("c", number, "t", None, None, None)[1] for number in range(10)]
        attachment.send(entry.TRANSACTION.pack(entry.SYNC) + entry.encode(entry.DELETE, b"c"))
        for line in lines:
            assert line is not None
            position = attachment.send(line)
        writer.process.wait(20)
        attachment.wait(position)
    with Messenger(data_dir) as m:
        m.publish("c", 10, payload_type="t")
    end_writer(data_dir)
    segments = list_segments(DataDirectory(data_dir).channel("c"))[0]
    assert [json.loads(line)["payload"] for line in segments[0].path.read_bytes().splitlines()] == list(range(11))
    assert [name for name in left(data_dir) if name.startswith(".")] == []


def test_a_channel_that_is_a_file_is_refused(data_dir: Path) -> None:
    fill(data_dir)
    (data_dir / "channels" / "f").write_text("x")
    attachment = Attachment(settings_for(data_dir))
    with pytest.raises(PublishRefused, match="not a directory"):
        attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.DELETE, b"f"), "f")
    attachment.close()


# ---- subscribers of other kinds


def test_by_force_under_parts(data_dir: Path, cli: Cli) -> None:
    """Each part begins anew; together they handle all that is new."""
    fill(data_dir)
    inboxes = [Inbox(), Inbox()]
    with Messenger(data_dir) as first, Messenger(data_dir) as second:
        for number, m in enumerate((first, second), 1):
            m.subscribe("c", "shared", inboxes[number - 1], part=(number, 2))
        assert first.drain(5)
        assert second.drain(5)
        cli("channel", "delete", "c", "--force", "--yes")
        first.publish_batch("c", range(40), payload_type="t")
        eventually(lambda: sum(inbox.messages.qsize() for inbox in inboxes) == 40)
        assert first.drain(5)
        assert second.drain(5)
    got = [[inbox.next().payload for _ in range(inbox.messages.qsize())] for inbox in inboxes]
    assert sorted(got[0] + got[1]) == list(range(40))
    assert all(numbers == sorted(numbers) for numbers in got)
    with Messenger(data_dir) as m:
        m.subscribe("c", "shared", inboxes[0])
        m.publish("c", 40, payload_type="t")
        assert inboxes[0].take(1) == [40]


def test_by_force_under_a_pattern(data_dir: Path, cli: Cli) -> None:
    fill(data_dir, channel="sensors.a")
    fill(data_dir, channel="sensors.b")
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("sensors.*", "dash", inbox, start="latest")
        cli("channel", "delete", "sensors.a", "--force", "--yes")
        m.publish_batch("sensors.a", range(3), payload_type="t")
        assert inbox.take(3) == [0, 1, 2]
        m.publish("sensors.b", 3, payload_type="t")
        assert inbox.take(1) == [3]
        assert m.drain(5)
    with Messenger(data_dir) as m:
        m.subscribe("sensors.*", "dash", inbox)
        m.publish("sensors.a", 4, payload_type="t")
        assert inbox.take(1) == [4]
        assert m.drain(5)
    assert inbox.messages.empty()
