"""The memory of a pattern's subscriber on disk: its format, what damage does, and who else looks into the directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from zlib import crc32

import pytest
from child import Child, eventually
from conftest import end_writer
from hypothesis import given
from hypothesis import strategies as st
from inbox import Inbox
from test_cli import Cli

from keyop import Messenger
from keyop.storage.pattern_file import PatternFileDamaged, format_seen, parse_seen, read_seen, write_seen

TYPE = "com.example.number.v1"
NAMES = st.text("abc.-_*?[]!1", min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.sets(NAMES, max_size=5), max_size=4))
def test_what_is_written_is_read(seen: dict[str, set[str]]) -> None:
    assert parse_seen(format_seen(seen)) == seen


@given(st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=3), min_size=1, max_size=2), st.data())
def test_a_flipped_bit_is_found(seen: dict[str, set[str]], data: st.DataObject) -> None:
    content = bytearray(format_seen(seen))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PatternFileDamaged):
        parse_seen(bytes(content))


@given(st.integers(0, 80))
def test_a_cut_is_found(length: int) -> None:
    content = format_seen({"sensors.*": {"sensors.attic", "sensors.cellar"}})
    assert length < len(content)
    with pytest.raises(PatternFileDamaged):
        parse_seen(content[:length])


def test_a_line_with_a_right_check_and_no_sense(tmp_path: Path) -> None:
    for body in (b'{"pattern":1}\n', b"[]\n", b"\xff\n", b'{"pattern":"a*","channels":3}\n'):
        head, _, _ = format_seen({}).partition(b"\n")
        with pytest.raises(PatternFileDamaged, match="line"):
            parse_seen(head[:-8] + b"%08x\n" % crc32(body) + body)


def test_it_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed at each of its steps: the old content or the new one is there, and the next write succeeds."""
    path = tmp_path / "subscribers" / ".patterns" / "dash"
    path.parent.parent.mkdir()
    write_seen(path, {"a*": {"a1"}})
    code = """
    import keyop.storage.disk as disk, keyop.storage.pattern_file as file
    real = {name: getattr(disk, name) for name in ("write_at", "sync_data", "rename", "sync_path")}
    calls = iter(range(100))
    def killing(name):
        def run(*arguments):
            if next(calls) == int(sys.argv[2]):
                os.kill(os.getpid(), 9)
            return real[name](*arguments)
        return run
    for name in real:
        setattr(disk, name, killing(name))
    file.write_seen(data_dir, {"a*": {"a1", "a2"}})
    say("whole")
    """
    for step in range(20):
        with Child(code, path, step) as child:
            rest = child.rest()
        assert read_seen(path) in ({"a*": {"a1"}}, {"a*": {"a1", "a2"}})
        if rest == ["whole"]:
            break
    assert step == 5
    write_seen(path, {"a*": {"a3"}})
    assert os.listdir(path.parent) == ["dash"]


@pytest.fixture
def followed(data_dir: Path) -> Path:
    """A directory in which a pattern was followed, by an id whose name ends like an offset file's."""
    with Messenger(data_dir) as m:
        for id in ("dash", "dash.offset"):
            m.subscribe("c.*", id, print)
        m.publish("c.1", 1, payload_type=TYPE)
        assert m.drain(20)
    return data_dir


def test_a_command_line_follows_a_pattern(data_dir: Path) -> None:
    cli = Cli(data_dir)
    cli("publish", "c.1", "1")
    printed = cli("consume", "c.*", "--id", "dash", "--start", "earliest", "--count", "1").stdout
    assert json.loads(printed)["channel"] == "c.1"
    assert read_seen(data_dir / "subscribers" / ".patterns" / "dash") == {"c.*": {"c.1"}}


def test_several_processes_add_to_what_the_others_have_noted(data_dir: Path) -> None:
    code = """
    import logging
    from keyop.attachment.attachment import Attachment
    from keyop.subscriber.seen_channels import SeenChannels
    with_settings = Attachment(settings_for(data_dir))
    for number in range(20):
        SeenChannels(with_settings, sys.argv[2], "dash", logging.getLogger()).add([f"{sys.argv[3]}.{number}"])
    with_settings.close()
    """
    wanted = {"a.*": {f"{name}.{n}" for name in "xy" for n in range(20)}, "b.*": {f"z.{n}" for n in range(20)}}
    with (
        Child(code, data_dir, "a.*", "x") as x,
        Child(code, data_dir, "a.*", "y") as y,
        Child(code, data_dir, "b.*", "z") as z,
    ):
        assert [child.end() for child in (x, y, z)] == [0, 0, 0], x.errors + y.errors + z.errors
    assert read_seen(data_dir / "subscribers" / ".patterns" / "dash") == wanted


def test_nobody_takes_it_for_a_channel(followed: Path) -> None:
    cli = Cli(followed)
    assert {row["channel"] for row in cli.json("subscribers")} == {"c.1"}
    assert [row["channel"] for row in cli.json("channels")] == ["c.1"]
    assert cli.json("verify")["problems"] == []
    end_writer(followed)
    cli("recover")
    assert cli.json("verify")["notes"] == []


def test_verify_finds_damage_and_strangers(followed: Path) -> None:
    patterns = followed / "subscribers" / ".patterns"
    (patterns / "dash").write_bytes(b"keyop-patterns 1 00000000\n{}\n")
    (patterns / "a stranger").write_text("x")
    (patterns / ".new-dash").write_text("half wri")
    found = Cli(followed).json("verify", code=1)
    assert [(item["kind"], Path(item["path"]).name) for item in found["problems"]] == [("pattern", "dash")]
    assert ("foreign", "a stranger") in [(item["kind"], Path(item["path"]).name) for item in found["notes"]]
    assert len(found["notes"]) == 1


@pytest.mark.parametrize("noticed", [False, True])
def test_a_channel_that_is_deleted_under_a_pattern(data_dir: Path, noticed: bool) -> None:
    cli, inbox = Cli(data_dir), Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)
        for channel in ("c.1", "c.2"):
            m.publish(channel, 1, payload_type=TYPE)
        assert inbox.take(2) == [1, 1]
        assert m.drain(20)
        cli("channel", "delete", "c.1", "--yes", code=1)
        cli("channel", "delete", "c.1", "--yes", "--force")
        m.publish("c.2", 2, payload_type=TYPE)
        assert inbox.next().payload == 2
        if noticed:
            eventually(lambda: read_seen(data_dir / "subscribers" / ".patterns" / "dash") == {"c.*": {"c.2"}})
            assert [s.channel for s in m.stats().subscribers] == ["c.2"]
        for number in (3, 4):
            m.publish("c.1", number, payload_type=TYPE)
        assert inbox.take(2) == [3, 4]
        assert m.drain(20)
    with Messenger(data_dir) as m:
        m.subscribe("c.*", "dash", inbox)
        m.publish("c.1", 5, payload_type=TYPE)
        assert inbox.next().payload == 5
    assert inbox.messages.empty()
    assert cli.json("verify")["problems"] == []
