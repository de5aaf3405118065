"""verify: every fault that a directory can have is found, and a sound one has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from child import Child, eventually, kill_writer, writer_pid
from test_follow import Channel

from keyop import DataDirectoryError, Messenger, follow
from keyop.configuration.lookup import settings_for
from keyop.inspection import at_rest, survey
from keyop.inspection.verification import Verification, verify
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import format_offset

GO_DATADIR = Path(__file__).parent / "fixtures" / "go-datadir"


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return Channel(tmp_path / "plain")


def kinds(found: Verification) -> list[tuple[str, int | None]]:
    return [(problem.kind, problem.offset) for problem in found.problems]


def found_in(channel: Channel) -> list[tuple[str, int | None]]:
    return kinds(verify(channel.data_dir))


def put_offset(channel: Channel, content: bytes, id: str = "s") -> None:
    directory = channel.data_dir / "subscribers" / channel.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{id}.offset").write_bytes(content)


def test_sound_directories(channel: Channel) -> None:
    end = channel.add(1, 2)
    channel.add(3, start=end)
    put_offset(channel, format_offset(end))
    found = verify(channel.data_dir)
    assert found.findings == []
    assert (found.channels, found.segments, found.records, found.offset_files) == (1, 2, 3, 1)
    go = verify(GO_DATADIR)
    assert go.findings == []
    assert (go.channels, go.records) == (3, 1309)


def test_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(GO_DATADIR, copy)
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    verify(copy)
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*")) == before


def test_gap_and_overlap(channel: Channel) -> None:
    end = channel.add(1, 2)
    gap_end = channel.add(3, start=end + 10)
    channel.add(4, start=gap_end - 5)
    assert found_in(channel) == [("gap", end), ("overlap", gap_end - 5)]


def test_torn_lines(channel: Channel) -> None:
    end = channel.add(1)
    second = channel.append(b'{"v":1,"id"')
    assert found_in(channel) == [("torn", end)]
    third = channel.add(2, start=second)
    channel.append(b"x", start=second)
    assert found_in(channel) == [("torn", end), ("torn", third)]


def test_damaged_lines(channel: Channel) -> None:
    first = channel.add(1)
    second = channel.append(b"garbage\n")
    third = channel.append(b'{"v":1,"id":"torn' + channel.line(2))
    channel.append(b"\0" * 100 + b"\n")
    assert found_in(channel) == [("damaged", first), ("damaged", second), ("damaged", third)]


def test_many_damaged_lines_do_not_flood(channel: Channel) -> None:
    channel.append(b"garbage\n" * 1000)
    found = verify(channel.data_dir)
    assert len(found.problems) == 21
    assert "980 more" in found.problems[-1].text


def test_a_line_over_the_limit(channel: Channel) -> None:
    first = channel.add(1)
    channel.append(b"x" * 10_485_760 + b"\n")
    channel.add(2)
    assert found_in(channel) == [("oversized", first)]
    channel.append(b"x" * 10_485_758 + b"\n")
    assert [kind for kind, _ in found_in(channel)] == ["oversized", "damaged"]


def test_other_channels_and_versions_are_notes(channel: Channel) -> None:
    channel.add(1)
    channel.append(Channel(channel.data_dir, "other").line(1) + b'{"v":2}\n')
    found = verify(channel.data_dir)
    assert found.problems == []
    assert sorted(note.kind for note in found.notes) == ["channel", "version"]


def test_names_and_foreign_files(channel: Channel) -> None:
    channel.add(1)
    (channel.path / "notes.txt").write_text("")
    (channel.path / "5.jsonl").write_text("")
    (channel.data_dir / "channels" / "file").write_text("")
    (channel.data_dir / "channels" / "bad name").mkdir()
    assert sorted(kind for kind, _ in found_in(channel)) == ["foreign", "foreign", "foreign", "name"]


def test_offset_files(channel: Channel) -> None:
    start = 1000
    middle = channel.add(1, start=start)
    end = channel.add(2, start=start)
    put_offset(channel, format_offset(middle), "good")
    put_offset(channel, b"%d\n" % end, "go")
    put_offset(channel, b"", "empty")
    put_offset(channel, format_offset(middle).replace(b" ", b"\t", 1), "check")
    put_offset(channel, format_offset(middle + 3), "inside")
    put_offset(channel, format_offset(end + 1), "beyond")
    put_offset(channel, format_offset(5), "below")
    found = verify(channel.data_dir)
    assert {Path(problem.path).stem for problem in found.problems} == {"empty", "check", "inside", "beyond", "below"}
    assert {problem.kind for problem in found.problems} == {"offset"}


def test_a_killed_writer_leaves_notes_and_no_problems(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish_batch("c", range(100), payload_type="t")
        beside = verify(data_dir)
        assert beside.writer_runs
        assert beside.problems == []
    kill_writer(data_dir)
    found = verify(data_dir)
    assert [note.kind for note in found.notes] == ["journal"]
    assert found.problems == []
    assert at_rest.recover(settings_for(data_dir)) == (True, False, None, 0, [])
    assert verify(data_dir).findings == []


def test_damage_in_the_journal(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for number in range(10):
            m.publish("c", number, payload_type="t")
    kill_writer(data_dir)
    path = data_dir / "journal" / "a.journal"
    whole = path.read_bytes()
    place = whole.index(b'"payload":4')
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    assert [kind for kind, _ in kinds(verify(data_dir))] == ["journal"]
    path.write_bytes(b"\1" * 1024 + whole[1024:])
    assert [kind for kind, _ in kinds(verify(data_dir))] == ["journal"]
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    (lost,) = at_rest.recover(settings_for(data_dir)).notes
    assert "damaged and lost" in lost
    # What the frame held stood in the segment already.
    assert [message.payload for message in follow(data_dir, "c", "earliest", wait=False)] == list(range(10))


def test_nothing_to_complain_beside_a_busy_writer(data_dir: Path) -> None:
    publisher = """
        with Messenger(data_dir) as m:
            say("ready")
            while True:
                m.publish_batch("c", [["x" * 1000]] * 50, payload_type="t")
    """
    with Child(publisher, data_dir) as child:
        child.expect("ready")
        eventually(lambda: (data_dir / "channels" / "c").exists())
        for _ in range(5):
            assert verify(data_dir).findings == []
    eventually(lambda: writer_pid(data_dir) is not None)


def test_not_a_data_directory(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError):
        verify(tmp_path / "nowhere")
    with pytest.raises(DataDirectoryError, match="no channels"):
        verify(tmp_path)


def test_what_subscribers_are_behind(channel: Channel) -> None:
    middle = channel.add(1, 2)
    end = channel.add(3, start=middle)
    put_offset(channel, format_offset(0), "first")
    put_offset(channel, format_offset(middle), "second")
    put_offset(channel, format_offset(end), "fed-peer")
    reports = survey.subscribers(DataDirectory(channel.data_dir))
    assert [(r.id, r.kind, r.offset, r.lag_bytes, r.lag_messages) for r in reports] == [
        ("fed-peer", "peer", end, 0, 0),
        ("first", "subscriber", 0, end, 3),
        ("second", "subscriber", middle, end - middle, 1),
    ]
    ages = {report.id: report.oldest_pending_s for report in reports}
    assert ages["fed-peer"] is None
    assert ages["first"] is not None
    assert 0 <= ages["first"] < 60
    (report,) = survey.channels(DataDirectory(channel.data_dir), count=True)
    assert (report.channel, report.segments, report.bytes, report.end_offset, report.records) == ("c", 2, end, end, 3)


def test_lines_that_nobody_writes_so_are_notes(channel: Channel) -> None:
    """A flipped bit may leave a line that can be read: as in Go, it is delivered."""
    whole = channel.line(1)
    damaged = (
        whole.replace(b'"payload_type"', b'"payload_typd"'),
        whole.replace(b'"id":"0', b'"id":"p'),
        whole.replace(b'Z","channel"', b'X","channel"'),
        whole.replace(b'"payload":', b'"paylobd":'),
        whole.replace(b'"origin":"', b'"origin":"\xe1'),
    )
    assert all(len(line) <= len(whole) + 1 and line != whole for line in damaged)
    offsets = [channel.append(line) - len(line) for line in (whole, *damaged)]
    found = verify(channel.data_dir)
    assert found.problems == []
    assert [(note.kind, note.offset) for note in found.notes] == [("odd", offset) for offset in offsets[1:]]
