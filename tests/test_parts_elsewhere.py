"""Shared work together with what else there is: messages that are put back, patterns, workers, offsets by command."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from child import eventually
from conftest import end_writer
from inbox import DEADLINE_S, Inbox
from test_cli import Cli
from test_parts import customer, divided, end, filed, keys_of, publish

from keyop import Message, Messenger
from keyop.storage.directory import DataDirectory
from keyop.storage.pattern_file import pattern_file


def letters(data_dir: Path) -> int:
    path = data_dir / "channels" / "c.dead-letter"
    return sum(segment.read_bytes().count(b"\n") for segment in path.glob("*.jsonl"))


def test_what_is_put_back_comes_to_the_part_whose_it_is(data_dir: Path) -> None:
    down = [True]

    def work(_message: Message[Any]) -> None:
        if down[0]:
            raise ConnectionError

    cli = Cli(data_dir)
    names = [*keys_of(1, 3, 2), *keys_of(2, 3, 2), *keys_of(3, 3, 2)]
    with Messenger(data_dir) as m:
        inboxes = [Inbox(work) for _ in range(3)]
        for number, inbox in enumerate(inboxes, 1):
            m.subscribe("c", "s", inbox, part=(number, 3), key=customer, max_retries=0)
        publish(m, *names)
        assert m.drain(DEADLINE_S)
        eventually(lambda: letters(data_dir) == 6)
        down[0] = False
        before = [inbox.take(2) for inbox in inboxes]
        for _ in range(2):
            cli("dead-letter", "replay", "c", "--yes")
        assert [inbox.take(2) for inbox in inboxes] == before
        publish(m, *names)
        assert m.drain(DEADLINE_S)
        assert [inbox.messages.qsize() for inbox in inboxes] == [2, 2, 2]


def test_what_is_put_back_waits_for_its_part(data_dir: Path) -> None:
    def fail(_message: Message[Any]) -> None:
        raise ConnectionError

    cli = Cli(data_dir)
    (name,) = keys_of(2, 2, 1)
    with Messenger(data_dir) as m:
        for number in (1, 2):
            m.subscribe("c", "s", fail, part=(number, 2), key=customer, max_retries=0)
        publish(m, name)
        eventually(lambda: letters(data_dir) == 1)
    cli("dead-letter", "replay", "c", "--yes")
    first, second = Inbox(), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", first, part=(1, 2), key=customer)
        eventually(lambda: filed(data_dir, "c.replay")[:1] == (end(data_dir, "c.replay"),))
        assert first.messages.empty()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", second, part=(2, 2), key=customer)
        assert second.take(1) == [{"customer": name, "n": 0}]
    with Messenger(data_dir) as m:
        for number, inbox in enumerate((first, second), 1):
            m.subscribe("c", "s", inbox, part=(number, 2), key=customer)
        publish(m, name)
        assert second.take(1)
        assert m.drain(DEADLINE_S)
        assert first.messages.empty()
        assert second.messages.empty()


def test_offsets_set_moves_all_parts(data_dir: Path) -> None:
    divided(data_dir)
    cli = Cli(data_dir)
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print, part=(2, 2))
        assert f"pid {os.getpid()}" in cli("offsets", "set", "c", "s", "latest", code=1).stderr
    cli("offsets", "set", "c", "s", "latest")
    end_writer(data_dir)
    assert filed(data_dir) == (end(data_dir),)
    assert not DataDirectory(data_dir).parts_file("c", "s").exists()


def test_a_pattern_is_remembered_until_its_last_part_is_given_up(data_dir: Path) -> None:
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        publish(m, "k0", channel="room.a")
        m.subscribe("room.*", "s", print, part=(1, 2), key=customer)
        other.subscribe("room.*", "s", print, part=(2, 2), key=customer)
        memory = pattern_file(DataDirectory(data_dir), "s")
        assert memory.exists()
        m.unsubscribe("room.*", "s")
        assert memory.exists()
        other.unsubscribe("room.*", "s")
        assert not memory.exists()


@pytest.mark.parametrize("messengers", [1, 2])
def test_a_channel_is_deleted_under_its_parts(
    data_dir: Path, messengers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each begins anew at the start of the new channel, also one that notices when the others are there already."""
    began = caplog.records
    go_on = threading.Event()
    first, second = Inbox(), Inbox(lambda _message: go_on.wait(DEADLINE_S) and None)
    cli = Cli(data_dir)
    mine, others = keys_of(1, 2, 1)[0], keys_of(2, 2, 1)[0]
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", first, part=(1, 2), key=customer)
        (m, other)[messengers - 1].subscribe("c", "s", second, part=(2, 2), key=customer)
        publish(m, mine, others)
        assert first.take(1)
        assert second.take(1)
        cli("channel", "delete", "c", "--force", "--yes")
        publish(m, mine, others, mine, others)
        assert [payload["n"] for payload in first.take(2)] == [0, 2]
        go_on.set()
        assert [payload["n"] for payload in second.take(2)] == [1, 3]
        assert m.drain(DEADLINE_S)
        assert other.drain(DEADLINE_S)
        eventually(lambda: filed(data_dir) == (end(data_dir), end(data_dir)))
    assert sum("begins anew" in record.getMessage() for record in began) == 2
