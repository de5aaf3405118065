"""``keyop export`` and ``keyop import``: there and back again, and what becomes of a bad line in the middle."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, writer_pid
from conftest import end_writer, leave
from test_cli import Cli
from writers import TINY, Writer

from keyop import Messenger, SubscriberBusy, follow
from keyop.configuration.lookup import settings_for
from keyop.maintenance.importing import Importer
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


@pytest.fixture
def other(tmp_path: Path):  # type: ignore[no-untyped-def]
    """The command line on another data directory."""
    path = tmp_path / "other"
    yield Cli(path)
    leave(path)


def lines_of(data_dir: Path, channel: str = "c") -> list[bytes]:
    segments = list_segments(DataDirectory(data_dir).channel(channel))[0]
    return b"".join(segment.path.read_bytes() for segment in segments).splitlines()


def fill(data_dir: Path, count: int = 100, channel: str = "c") -> None:
    with Messenger(data_dir) as m:
        for number in range(count // 2):
            m.publish(channel, {"n": number}, payload_type="t", correlation_id="k", service_name="s")
        m.publish_batch(channel, [{"n": number} for number in range(count // 2, count)], payload_type="ä")


def payloads(data_dir: Path, channel: str = "c") -> list[Any]:
    return [message.payload for message in follow(data_dir, channel, "earliest", wait=False)]


def test_there_and_back_again(data_dir: Path, cli: Cli, other: Cli, tmp_path: Path) -> None:
    fill(data_dir)
    file = tmp_path / "c.jsonl"
    assert "100 messages exported" in cli("export", "c", "-o", file).stderr
    assert file.read_bytes().splitlines() == lines_of(data_dir)
    assert "is there already" in cli("export", "c", "-o", file, code=1).stderr
    nowhere = tmp_path / "no" / "c.jsonl"
    assert f"{nowhere.parent}: there is no such directory" in cli("export", "c", "-o", nowhere, code=1).stderr
    cli("export", "c", "-o", file, "--force")
    assert sorted(os.listdir(tmp_path)) == ["c.jsonl", "data"]
    assert other.json("import", file) == {"imported": 100, "existing": 0, "skipped": 0}
    assert lines_of(other.data_dir) == lines_of(data_dir)
    other("import", "--channel", "again", stdin=file.read_bytes())
    again = [json.loads(line) for line in lines_of(other.data_dir, "again")]
    assert again == [{**json.loads(line), "channel": "again"} for line in lines_of(data_dir)]


def test_twice_is_told(data_dir: Path, cli: Cli, other: Cli) -> None:
    fill(data_dir)
    exported = cli("export", "c").stdout
    other("import", stdin=exported)
    said = other("import", stdin=exported, code=1).stderr
    assert "line 1: message " in said
    assert "was this imported before? --skip-existing passes over what is there" in said
    assert len(lines_of(other.data_dir)) == 100
    fill(data_dir, 10)
    exported = cli("export", "c").stdout
    done = other("import", "--skip-existing", stdin=exported)
    assert "10 messages imported, 100 were there already" in done.stderr
    assert lines_of(other.data_dir) == lines_of(data_dir)
    assert "in channel c already" in cli("import", stdin=exported, code=1).stderr


def test_twice_in_one_file(other: Cli, data_dir: Path, cli: Cli) -> None:
    fill(data_dir, 10)
    exported = cli("export", "c").stdout
    assert "line 11: message " in other("import", stdin=exported + exported, code=1).stderr
    assert len(lines_of(other.data_dir)) == 10


def test_by_time_and_by_place(data_dir: Path, cli: Cli) -> None:
    fill(data_dir, 10)
    messages = list(follow(data_dir, "c", "earliest", wait=False))
    middle = messages[3].ts_text

    def ids(*options: object) -> list[str]:
        return [json.loads(line)["id"] for line in cli("export", "c", *options).stdout.splitlines()]

    everything = [message.id for message in messages]
    later = [message.id for message in messages if message.ts_text >= middle]
    assert ids("--since", messages[3].ts.isoformat())[-len(later) :] == later
    assert ids("--since", messages[3].ts.isoformat()) + ids("--until", messages[3].ts.isoformat()) != []
    assert sorted(ids("--since", messages[3].ts.isoformat()) + ids("--until", messages[3].ts.isoformat())) == sorted(
        everything
    )
    assert ids("--from", messages[6].offset) == everything[6:]
    assert ids("--since", "1h") == everything
    assert ids("--until", "1h") == []
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert ids("--since", future) == []
    assert "neither a time" in cli("export", "c", "--since", "latest", code=2).stderr
    assert "there is no channel 'x'" in cli("export", "x", code=1).stderr


BAD = [
    (b"no json", "not an envelope: not a JSON object"),
    (b'{"v":1,"id":"a","ts":"2026-01-01T00:00:00Z","channel":"c","payload":{"x":', "not an envelope"),
    (b'{"v":2,"id":"a","channel":"c"}', "not an envelope: v is 2"),
    (b'{"v":1,"channel":"c","payload":1}', "the envelope has no id"),
    (b'{"v":1,"id":"a","channel":"../../c","payload":1}', "not a channel name"),
    (b'{"v":1,"id":"a","channel":"c.replay","payload":1}', "what was put back is for a subscriber"),
    (b'{"v":1,"id":"a","channel":"c","payload":"%b"}' % (b"x" * 10_485_717), "the limit (storage.max_mess"),
    (b"x" * 10_485_761, "too long for a message"),
]


@pytest.mark.parametrize(("bad", "why"), BAD, ids=[why for _, why in BAD])
def test_a_bad_line_in_the_middle(data_dir: Path, cli: Cli, other: Cli, bad: bytes, why: str) -> None:
    """All before it, and with --skip-bad all behind it."""
    fill(data_dir)
    good = lines_of(data_dir)
    text = b"\n".join([*good[:57], b"", bad, *good[57:]]) + b"\n"
    said = other("import", stdin=text, code=1).stderr
    assert "line 59: " in said
    assert why in said
    assert "57 messages imported" in said
    assert lines_of(other.data_dir) == good[:57]
    done = other("import", "--skip-existing", "--skip-bad", stdin=text)
    assert "43 messages imported, 57 were there already, 1 lines skipped" in done.stderr
    assert lines_of(other.data_dir) == good


def test_what_is_damaged_is_passed_over_and_told(data_dir: Path, cli: Cli, other: Cli) -> None:
    fill(data_dir, 10)
    end_writer(data_dir)
    (segment,) = list_segments(DataDirectory(data_dir).channel("c"))[0]
    data = segment.path.read_bytes()
    segment.path.write_bytes(data.replace(b'{"n":4}', b'{"n":\xff\x00'))
    done = cli("export", "c", code=1)
    assert "it is passed over" in done.stderr
    assert "9 messages exported, 1 records not whole" in done.stderr
    other("import", stdin=done.stdout)
    assert [payload["n"] for payload in payloads(other.data_dir)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_several_channels_in_one_file_and_dead_letters(data_dir: Path, cli: Cli, other: Cli) -> None:
    def fail(_message: object) -> None:
        raise OSError("no")

    with Messenger(data_dir) as m:
        m.subscribe("c", "s", fail, max_retries=0)
        m.publish("c", 1, payload_type="t")
        eventually(lambda: lines_of(data_dir, "c.dead-letter"))
    fill(data_dir, 10, "d")
    exported = "".join(cli("export", channel).stdout for channel in ("c", "d", "c.dead-letter"))
    assert "12 messages imported" in other("import", stdin=exported).stderr
    for channel in ("c", "d", "c.dead-letter"):
        assert lines_of(other.data_dir, channel) == lines_of(data_dir, channel)


def test_an_export_ends_while_somebody_publishes(data_dir: Path, cli: Cli) -> None:
    source = """
        m = Messenger(data_dir)
        number = 0
        while True:
            m.publish("c", number, payload_type="t")
            number += 1
            if number == 20:
                say("go")
    """
    with Child(source, data_dir) as child:
        child.expect("go")
        assert len(cli("export", "c").stdout.splitlines()) >= 20
        child.kill()


def test_killed_in_the_middle_and_given_again(data_dir: Path, cli: Cli, other: Cli, tmp_path: Path) -> None:
    fill(data_dir, 3000)
    file = tmp_path / "c.jsonl"
    cli("export", "c", "-o", file)
    source = """
        from keyop.maintenance.importing import Importer
        lines = list(enumerate(Path(sys.argv[2]).read_bytes().splitlines(), 1))
        with Importer(settings_for(data_dir), skip_existing=True) as importer:
            for at in range(0, len(lines), 10):
                importer.add(lines[at : at + 10])
                say(importer.imported)
    """
    for count in (3, 30, 90):
        with Child(source, other.data_dir, file) as child:
            for _ in range(count):
                child.hear()
            child.kill()
    assert "were there already" in other("import", file, "--skip-existing").stderr
    assert lines_of(other.data_dir) == lines_of(data_dir)


@pytest.mark.parametrize("step", ["frame.written:5", "frame.synced:5", "applied:5", "settled:5", "segment.created:2"])
def test_the_writer_is_killed_meanwhile(data_dir: Path, cli: Cli, other: Cli, step: str) -> None:
    fill(data_dir, 2000)
    exported = cli("export", "c").stdout
    other.data_dir.mkdir()
    with Writer(other.data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY) as writer:
        other("import", stdin=exported)
        assert writer.process.wait(20) == -9
    assert lines_of(other.data_dir) == lines_of(data_dir)


def test_two_at_once(data_dir: Path) -> None:
    with Importer(settings_for(data_dir)), pytest.raises(SubscriberBusy, match="another import works here"):
        Importer(settings_for(data_dir))
    assert writer_pid(data_dir) is not None


def test_what_was_deleted_is_imported_again(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    exported = cli("export", "c").stdout
    before = lines_of(data_dir)
    cli("channel", "delete", "c", "--yes")
    cli("import", stdin=exported)
    assert lines_of(data_dir) == before
