"""``keyop offsets``: shown, moved and forgotten, but not under a running subscriber."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from child import Child, eventually
from conftest import end_writer
from inbox import Inbox
from test_cli import Cli
from writers import TINY, Writer

from keyop import Messenger, follow
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


def filed(data_dir: Path, id: str = "s", channel: str = "c") -> int | None:
    parsed = read_offset(DataDirectory(data_dir).offset_file(channel, id))
    return None if parsed is None else parsed.value


def published(data_dir: Path, count: int = 3, *, id: str = "s", exactly_once: bool = False) -> list[int]:
    """So many messages, all handled; the offsets at which they begin, and the channel's end."""
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", id, inbox, exactly_once=exactly_once)
        m.publish_batch("c", range(count), payload_type="t")
        assert inbox.take(count) == list(range(count))
        end = m._attachment.channel_end("c")
    return [*(message.offset for message in follow(data_dir, "c", "earliest", wait=False)), end]


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("writer_runs", [True, False])
def test_set_and_go_on_there(data_dir: Path, cli: Cli, exactly_once: bool, writer_runs: bool) -> None:
    offsets = published(data_dir, exactly_once=exactly_once)
    for where, first in (("earliest", 0), (offsets[2], 2), (offsets[1] + 5, 1), ("latest", None)):
        if not writer_runs:
            end_writer(data_dir)
        moved = cli.json("offsets", "set", "c", "s", where)
        expected = offsets[3 if first is None else first]
        assert (moved["old"], moved["new"]) == (offsets[3], expected)
        assert filed(data_dir) == expected
        inbox = Inbox()
        with Messenger(data_dir) as m:
            m.subscribe("c", "s", inbox, exactly_once=exactly_once)
            assert inbox.take(0 if first is None else 3 - first) == list(range(3 if first is None else first, 3))
            m.drain(5)
        assert inbox.messages.empty()


def test_set_to_a_time(data_dir: Path, cli: Cli) -> None:
    offsets = published(data_dir)
    messages = list(follow(data_dir, "c", "earliest", wait=False))
    assert cli.json("offsets", "set", "c", "s", messages[0].ts.isoformat())["new"] == 0
    assert (
        cli.json("offsets", "set", "c", "s", (datetime.now(UTC) + timedelta(hours=1)).isoformat())["new"] == offsets[3]
    )
    assert cli.json("offsets", "set", "c", "s", "1h")["new"] == 0
    assert "-> 0" in cli("offsets", "set", "c", "s", "7d").stdout


def test_an_offset_that_is_none_is_brought_to_one(data_dir: Path, cli: Cli) -> None:
    offsets = published(data_dir)
    assert "(no message begins at 99,999)" in cli("offsets", "set", "c", "s", 99_999).stdout
    assert filed(data_dir) == offsets[3]


def test_attempts_are_forgotten(data_dir: Path, cli: Cli) -> None:
    """A message that had used up its retries when its process ended is not given up at once."""
    with Messenger(data_dir) as m:
        m.publish("c", "x", payload_type="t")
    source = """
        m = Messenger(data_dir)
        m.subscribe("c", "s", lambda message: os.kill(os.getpid(), 9), start="earliest", max_retries=5)
        hear()
    """
    with Child(source, data_dir) as child:
        assert child.end() == -9
    cli("offsets", "set", "c", "s", "earliest")
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.next().attempt == 1


def test_a_running_subscriber_is_named(data_dir: Path, cli: Cli) -> None:
    published(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print)
        for command in (("set", "c", "s", "earliest"), ("forget", "c", "s", "--yes")):
            said = cli("offsets", *command, code=1).stderr
            assert f"channel 'c': 's' runs (pid {os.getpid()})" in said
        assert cli.json("offsets", "show", "c", "s")[0]["pid"] == os.getpid()
    assert filed(data_dir) is not None


def test_the_writer_has_the_last_word(data_dir: Path) -> None:
    """Somebody subscribes between the look and the command."""
    from keyop import SubscriberBusy
    from keyop.attachment.attachment import Attachment
    from keyop.configuration.lookup import settings_for
    from keyop.protocol import entry

    published(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print)
        attachment = Attachment(settings_for(data_dir))
        for kind in (entry.SET, entry.FORGET):
            with pytest.raises(SubscriberBusy):
                attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(kind, b"c", b"s"), "c")
        attachment.close()


def test_show(data_dir: Path, cli: Cli) -> None:
    offsets = published(data_dir)
    cli("offsets", "set", "c", "s", offsets[1])
    published(data_dir, id="t")
    messages = list(follow(data_dir, "c", "earliest", wait=False))
    first, second = cli.json("offsets", "show", "c")
    assert (first["id"], first["offset"], first["next_id"]) == ("s", offsets[1], messages[1].id)
    assert (second["id"], second["next_id"], second["lag_bytes"]) == ("t", None, 0)
    assert first["end_offset"] == second["offset"] == second["end_offset"]
    assert messages[1].id in cli("offsets", "show", "c").stdout
    assert "no subscriber 'x' (there are: s, t)" in cli("offsets", "show", "c", "x", code=1).stderr


def test_forget(data_dir: Path, cli: Cli) -> None:
    published(data_dir)
    assert "say --yes" in cli("offsets", "forget", "c", "s", code=2).stderr
    assert filed(data_dir) is not None
    assert cli("offsets", "forget", "c", "s", "--yes").stdout == "c/s: forgotten\n"
    assert filed(data_dir) is None
    assert "(there are: none)" in cli("offsets", "forget", "c", "s", "--yes", code=1).stderr
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox, start="earliest")
        assert inbox.take(3) == [0, 1, 2]


def test_names_and_typing_errors(data_dir: Path, cli: Cli) -> None:
    published(data_dir)
    assert "no subscriber 'S' (there are: s)" in cli("offsets", "set", "c", "S", "latest", code=1).stderr
    assert filed(data_dir, "S") is None
    assert cli.json("offsets", "set", "c", "new", "earliest", "--create")["old"] is None
    assert filed(data_dir, "new") == 0
    assert "there is no channel 'x'" in cli("offsets", "set", "x", "s", "latest", code=1).stderr
    assert "is none of earliest" in cli("offsets", "set", "c", "s", "sometime", code=2).stderr
    assert "not a subscriber id" in cli("offsets", "set", "c", "../s", "latest", code=2).stderr


@pytest.mark.parametrize("step", ["frame.written:1", "frame.synced:1", "applied:1", "settled:1", "offset.drafted:1"])
def test_the_writer_is_killed_while_it_moves_an_offset(data_dir: Path, cli: Cli, step: str) -> None:
    published(data_dir)
    end_writer(data_dir)
    with Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, idle_exit=0.2, **TINY) as writer:
        assert cli.json("offsets", "set", "c", "s", "earliest")["new"] == 0
        eventually(lambda: writer.process.poll() is not None)
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.take(3) == [0, 1, 2]
