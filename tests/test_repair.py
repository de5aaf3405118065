"""``keyop verify --repair``: what is repaired, that copies are kept, and that nothing is lost by it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import end_writer
from inbox import Inbox
from test_cli import Cli
from writers import TINY, Writer

from keyop import Messenger, follow
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import read_offset
from keyop.storage.segments import list_segments


@pytest.fixture
def cli(data_dir: Path) -> Cli:
    return Cli(data_dir)


def fill(data_dir: Path, count: int = 10) -> list[int]:
    """So many messages, handled; where they begin, and the end. At rest afterwards."""
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        m.publish_batch("c", range(count), payload_type="t")
        inbox.take(count)
        end = m._attachment.channel_end("c")
    end_writer(data_dir)
    return [*(message.offset for message in follow(data_dir, "c", "earliest", wait=False)), end]


def payloads(data_dir: Path) -> list[Any]:
    return [message.payload for message in follow(data_dir, "c", "earliest", wait=False)]


def segment(data_dir: Path) -> Path:
    return list_segments(DataDirectory(data_dir).channel("c"))[0][-1].path


def offset_file(data_dir: Path, id: str = "s") -> Path:
    return DataDirectory(data_dir).offset_file("c", id)


def settle(data_dir: Path) -> None:
    """Have a writer once more, which sweeps what the dead have left in shared memory."""
    with Messenger(data_dir) as m:
        m.publish("c", "more", payload_type="t")


def test_nothing_to_do(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    assert "there is nothing that can be repaired" in cli("verify", "--repair", "--yes").stderr
    assert not (data_dir / "repair").exists()


def test_beside_a_writer_it_is_refused(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    with Messenger(data_dir):
        assert "files are repaired at rest" in cli("verify", "--repair", "--yes", code=69).stderr


def test_it_asks(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    with segment(data_dir).open("ab") as file:
        file.write(b'{"v":1,"id":"half')
    before = segment(data_dir).read_bytes()
    assert "say --yes" in cli("verify", "--repair", code=2).stderr
    assert segment(data_dir).read_bytes() == before


def test_a_torn_end(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    with segment(data_dir).open("ab") as file:
        file.write(b'{"v":1,"id":"half')
    before = segment(data_dir).read_bytes()
    result = cli.json("verify", "--repair", "--yes")
    assert result["clean"]
    assert [step["action"] for step in result["repaired"]] == ["cut"]
    (copy,) = Path(result["copies"]).rglob("*.jsonl")
    assert copy.read_bytes() == before
    assert payloads(data_dir) == list(range(10))
    assert cli.json("verify")["clean"]


def test_a_journal_that_was_not_replayed(data_dir: Path, cli: Cli) -> None:
    """Of the files that the replay writes to there are copies; all that was acknowledged is there."""
    with Writer(data_dir, on_demand=True, **TINY) as writer, Messenger(data_dir) as m:
        for number in range(50):
            m.publish("c", number, payload_type="t")
        # Nobody starts another one.
        m._attachment._spawner.spawn = lambda: False  # type: ignore[method-assign]
        writer.process.kill()
        writer.process.wait()
        path = segment(data_dir)
        whole = path.read_bytes()
        path.write_bytes(whole[:-100] + bytes(100))  # as a power cut leaves it
        result = cli.json("verify", "--repair", "--yes")
        del m._attachment._spawner.spawn
    settle(data_dir)
    assert result["clean"]
    assert path.read_bytes().startswith(whole)
    assert (Path(result["copies"]) / "journal").is_dir()
    (copy,) = Path(result["copies"]).rglob(path.name)
    assert copy.read_bytes() == whole[:-100] + bytes(100)


def test_what_is_no_part_of_a_channel_is_moved_away(data_dir: Path, cli: Cli) -> None:
    fill(data_dir)
    channels = data_dir / "channels"
    (channels / "c" / "notes.txt").write_text("hello")
    (channels / "c" / "old").mkdir()
    (channels / "c" / "old" / "x").write_text("y")
    (channels / "readme").write_text("hi")
    result = cli.json("verify", "--repair", "--yes")
    assert result["clean"]
    away = Path(result["copies"]) / "channels"
    assert (away / "c" / "notes.txt").read_text() == "hello"
    assert (away / "c" / "old" / "x").read_text() == "y"
    assert (away / "readme").read_text() == "hi"
    assert os.listdir(channels) == ["c"]


@pytest.mark.parametrize("which", ["inside", "beyond"])
def test_an_offset_where_no_message_begins(data_dir: Path, cli: Cli, which: str) -> None:
    offsets = fill(data_dir)
    wrong, right = {"inside": (offsets[4] + 3, offsets[4]), "beyond": (offsets[-1] + 1000, offsets[-1])}[which]
    write_offset(offset_file(data_dir), wrong)
    before = offset_file(data_dir).read_bytes()
    result = cli.json("verify", "--repair", "--yes")
    assert result["clean"]
    parsed = read_offset(offset_file(data_dir))
    assert parsed is not None
    assert parsed.value == right
    assert (Path(result["copies"]) / "subscribers" / "c" / "s.offset").read_bytes() == before


def test_what_cannot_be_brought_back_is_left_and_named(data_dir: Path, cli: Cli) -> None:
    offsets = fill(data_dir)
    path = segment(data_dir)
    data = bytearray(path.read_bytes())
    data[offsets[3] : offsets[3] + 5] = b"#####"
    path.write_bytes(data)
    offset_file(data_dir).write_bytes(b"12x")
    done = cli("verify", "--repair", "--yes", code=1)
    assert "there is nothing that can be repaired" in done.stderr
    assert "damaged" in done.stdout
    assert "`keyop offsets set c s WHERE`" in done.stdout
    assert path.read_bytes() == data
    assert offset_file(data_dir).read_bytes() == b"12x"
    cli("offsets", "set", "c", "s", offsets[5])
    inbox = Inbox()
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", inbox)
        assert inbox.take(5) == [5, 6, 7, 8, 9]


def test_killed_in_the_middle_and_done_again(data_dir: Path, cli: Cli) -> None:
    """The writer that replays is killed: the next repair goes on, and the first copy is still what was there first."""
    with Writer(data_dir, on_demand=True, **TINY) as writer, Messenger(data_dir) as m:
        m.publish_batch("c", range(50), payload_type="t")
        m._attachment._spawner.spawn = lambda: False  # type: ignore[method-assign]
        writer.process.kill()
        writer.process.wait()
        path = segment(data_dir)
        whole = path.read_bytes()
        path.write_bytes(whole[:500])
        env = {**cli.env, "KEYOP_CRASH_AT": "recovery.applied:1"}
        cli("verify", "--repair", "--yes", env=env, code=69)
        assert cli.json("verify", "--repair", "--yes")["clean"]
        del m._attachment._spawner.spawn
    settle(data_dir)
    assert path.read_bytes().startswith(whole)
    copies = [file.read_bytes() for file in (data_dir / "repair").rglob(path.name)]
    assert whole[:500] in copies


def test_a_gap(data_dir: Path, cli: Cli) -> None:
    """A segment that is gone is gone: said, and nothing is moved for it."""
    with Writer(data_dir, on_demand=True, **TINY), Messenger(data_dir) as m:
        m.publish_batch("c", ["x" * 500] * 30, payload_type="t")
    end_writer(data_dir)
    segments = list_segments(DataDirectory(data_dir).channel("c"))[0]
    segments[1].path.unlink()
    done = cli("verify", "--repair", "--yes", code=1)
    assert "bytes are missing before this segment" in done.stdout
    assert [each.path for each in list_segments(DataDirectory(data_dir).channel("c"))[0]] == [
        each.path for each in segments if each is not segments[1]
    ]
