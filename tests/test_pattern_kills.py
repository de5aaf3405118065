"""Patterns under kill -9: of the process that follows, at each of its steps and in a loop, and of the writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from child import Child, eventually, kill_writer
from inbox import Inbox

from keyop import Messenger, follow
from keyop.storage.pattern_file import read_seen

pytestmark = pytest.mark.alone

TYPE = "com.example.number.v1"
DEADLINE_S = 30.0

_DYING = """
import keyop.subscriber.seen_channels as memory
from keyop.subscriber.member import Member
where = sys.argv[2]
def die():
    os.kill(os.getpid(), 9)
real_open, real_write = Member.open, memory.write_seen
def open_(member):
    if where == "before open" and "new" in member.channel:
        die()
    real_open(member)
    if where == "after open" and "new" in member.channel:
        die()
def write(path, seen):
    if where == "before it is noted" and any("new" in c for channels in seen.values() for c in channels):
        die()
    real_write(path, seen)
    if where == "after it is noted" and any("new" in c for channels in seen.values() for c in channels):
        die()
Member.open, memory.write_seen = open_, write
m = Messenger(data_dir)
m.subscribe("c.*", "dash", lambda message: say(message.channel, message.payload), start="latest")
say("ready")
hear()
"""


@pytest.mark.parametrize("where", ["before open", "after open", "before it is noted", "after it is noted"])
def test_a_channel_that_comes_while_its_follower_dies_is_followed_from_its_start(data_dir: Path, where: str) -> None:
    with Messenger(data_dir) as m, Child(_DYING, data_dir, where) as child:
        child.expect("ready")
        m.publish("c.new", 1, payload_type=TYPE)
        child.end()
        m.publish("c.new", 2, payload_type=TYPE)
        inbox = Inbox()
        m.subscribe("c.*", "dash", inbox, start="latest")
        assert inbox.take(2) == [1, 2]


@pytest.mark.parametrize("where", ["after open", "before it is noted", "after it is noted"])
def test_a_first_start_that_dies_loses_nothing_that_comes_after_it(data_dir: Path, where: str) -> None:
    with Messenger(data_dir) as m, Child(_DYING, data_dir, where) as child:
        for channel in ("c.1new", "c.2new", "c.3new"):
            m.publish(channel, 0, payload_type=TYPE)
        assert child.end() == -9
        inbox = Inbox()
        for channel in ("c.1new", "c.2new", "c.3new"):
            m.publish(channel, 1, payload_type=TYPE)
        m.subscribe("c.*", "dash", inbox, start="latest")
        for channel in ("c.1new", "c.2new", "c.3new"):
            m.publish(channel, 2, payload_type=TYPE)
        assert m.drain(DEADLINE_S)
        got: dict[str, list[int]] = {}
        while not inbox.messages.empty():
            message = inbox.next()
            got.setdefault(message.channel, []).append(message.payload)
        # A channel whose cursor was made goes on there; without one this is the first time again.
        may_be = [[1, 2]] if where.endswith("noted") else [[1, 2], [2]]
        assert [numbers in may_be for numbers in got.values()] == [True] * 3


_FOLLOWER = """
notes = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
exactly_once = sys.argv[3] == "exactly once"
def handle(message):
    if exactly_once:
        m.publish("out", [message.channel, message.payload], payload_type="t")
    if message.payload % 7 == 3 and message.attempt == 1:
        raise ValueError("once")
    os.write(notes, f'["{message.channel}",{message.payload}]\\n'.encode())
m = Messenger(data_dir)
m.subscribe("c.*", "dash", handle, retry_backoff=(0.001, 0.001), exactly_once=exactly_once, max_retries=1000)
say("ready")
hear()
m.close()
"""


@pytest.mark.parametrize("kind", ["plain", "exactly once"])
def test_a_follower_that_is_killed_again_and_again_loses_nothing(data_dir: Path, kind: str) -> None:
    notes = data_dir.with_name("notes")
    notes.touch()
    published: dict[str, list[int]] = {}
    number = 0
    with Messenger(data_dir) as m:
        with Child(_FOLLOWER, data_dir, notes, kind) as first:
            first.expect("ready")
        for round_ in range(12):
            with Child(_FOLLOWER, data_dir, notes, kind) as child:
                child.expect("ready")
                for _ in range(60):
                    channel = f"c.{number % (2 + round_)}"  # one more with each round
                    m.publish(channel, number, payload_type=TYPE)
                    published.setdefault(channel, []).append(number)
                    number += 1
                before = notes.stat().st_size
                eventually(lambda before=before: notes.stat().st_size > before or before > 0)
                if round_ % 4 == 3:
                    kill_writer(data_dir)
                child.kill()
        with Child(_FOLLOWER, data_dir, notes, kind) as last:
            last.expect("ready")
            wanted = {(channel, each) for channel, numbers in published.items() for each in numbers}
            eventually(lambda: wanted <= handled(notes), timeout=DEADLINE_S)
            last.say()
            assert last.end() == 0
    firsts: dict[str, list[int]] = {}
    for channel, each in lines(notes):
        if each not in firsts.setdefault(channel, []):
            firsts[channel].append(each)
    assert firsts == published
    assert read_seen(data_dir / "subscribers" / ".patterns" / "dash") == {"c.*": set(published)}
    if kind == "exactly once":
        out = [tuple(message.payload) for message in follow(data_dir, "out", "earliest", wait=False)]
        assert len(out) == len(set(out)) == number


def lines(notes: Path) -> list[tuple[str, int]]:
    # The last line may be half written.
    return [(item[0], item[1]) for item in map(json.loads, notes.read_text().splitlines())]


def handled(notes: Path) -> set[tuple[str, int]]:
    return set(lines(notes))
