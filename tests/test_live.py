"""The looks of `keyop.live`, beside real writers and subscribers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from child import Child, eventually, kill_writer, writer_pid
from conftest import end_writer, objects_of

from keyop import Messenger
from keyop.errors import DataDirectoryError
from keyop.inspection.usage import usage
from keyop.live import files
from keyop.live.backlog import Sample
from keyop.live.rates import Rates
from keyop.live.sampler import Sampler, require
from keyop.live.snapshot import ChannelView, Snapshot, SubscriberView
from keyop.storage.directory import DataDirectory


def sampler(path: Path) -> Sampler:
    return Sampler(DataDirectory(path))


def channel(snapshot: Snapshot, name: str) -> ChannelView:
    (row,) = [row for row in snapshot.channels if row.channel == name]
    return row


def subscriber(snapshot: Snapshot, id: str) -> SubscriberView:
    (row,) = [row for row in snapshot.subscribers if row.id == id]
    return row


def publish(m: Messenger, channel: str, *payloads: object) -> None:
    m.publish_batch(channel, payloads, payload_type="com.example.n.v1")


def counted(looks: Sampler, name: str, number: int) -> Snapshot:
    """The writer counts when the publisher is on its way already: look until the rates come to this many messages."""
    total = 0.0
    snapshot = looks.look()

    def count() -> bool:
        nonlocal snapshot, total
        total += (channel(snapshot, name).messages_per_s or 0) * snapshot.elapsed_s
        if total > number - 0.5:
            return True
        snapshot = looks.look()
        return False

    eventually(count)
    assert total == pytest.approx(number, rel=0.03)
    return snapshot


def test_rates_of_channels(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
        publish(m, "b", 1)
        looks = sampler(data_dir)
        first = looks.look()
        assert channel(first, "a").messages_per_s == 0.0
        assert first.elapsed_s == 0
        publish(m, "a", *range(500))
        second = counted(looks, "a", 500)
        row = channel(second, "a")
        assert row.history[-1] == row.messages_per_s > 0
        assert row.bytes == sum(path.stat().st_size for path in (data_dir / "channels/a").iterdir())
        assert second.taken_unix_s - 5 < (row.last_write_unix_s or 0) <= second.taken_unix_s
        third = looks.look()
        assert (channel(third, "a").messages_per_s, channel(third, "a").bytes_per_s) == (0.0, 0.0)
        assert channel(third, "a").history == (*row.history, 0.0)
        publish(m, "new", *range(100))
        counted(looks, "new", 100)
        # One that stands still is not computed again.
        eventually(lambda: channel(looks.look(), "b") is channel(looks.look(), "b"))
        looks.close()


def test_subscribers_from_slots_and_files(data_dir: Path) -> None:
    with Child(
        """
        def handle(msg):
            say("handles", msg.payload)
            if hear() == "fail": raise ValueError("no")
        with Messenger(data_dir) as m:
            m.subscribe("a", "one", handle, start="earliest", retry_backoff=(60, 60))
            say("subscribed")
            m.run()
        """,
        data_dir,
    ) as child:
        child.expect("subscribed")
        with Messenger(data_dir) as m:
            looks = sampler(data_dir)
            assert subscriber(looks.look(), "one").state == "idle"
            publish(m, "a", 1, 2, 3)
            child.expect("handles 1")
            row = subscriber(looks.look(), "one")
            assert (row.state, row.pids, row.lag_messages, row.lag_is_exact) == ("busy", (child.pid,), 3, True)
            assert (row.handled, row.failed, row.kind) == (0, 0, "subscriber")
            assert row.oldest_pending_unix_s is not None
            child.say("go on")
            child.expect("handles 2")
            rows: list[SubscriberView] = []
            eventually(lambda: rows.append(subscriber(looks.look(), "one")) or rows[-1].handled == 1)
            assert rows[-1].handled_per_s > 0
            eventually(lambda: subscriber(looks.look(), "one").lag_messages == 2)
            child.say("fail")
            eventually(lambda: subscriber(looks.look(), "one").failed == 1)
            child.kill()
            eventually(lambda: subscriber(looks.look(), "one").state == "away")
            # The writer files what stands in the slot of the dead.
            eventually(lambda: subscriber(looks.look(), "one").lag_messages == 2)
            row = subscriber(looks.look(), "one")
            assert (row.pids, row.handled) == ((), None)
            looks.close()


def test_a_retry_shows(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        looks = sampler(data_dir)

        def fail(msg: object) -> None:
            raise ValueError("no")

        m.subscribe("a", "one", fail, retry_backoff=(0.01, 60))
        publish(m, "a", 1)
        eventually(lambda: subscriber(looks.look(), "one").state == "retrying")
        looks.close()


def test_parts_are_one_row_and_the_one_behind_counts(data_dir: Path) -> None:
    go_on = threading.Event()
    with Messenger(data_dir) as m:
        m.subscribe("a", "one", lambda msg: go_on.wait(20), part=(1, 2))
        looks = sampler(data_dir)
        row = subscriber(looks.look(), "one")
        assert (row.parts_held, row.parts) == (1, 2)
        m.subscribe("a", "one", lambda msg: None, part=(2, 2))
        publish(m, "a", *range(100))  # by their ids: about the half of them for each
        eventually(lambda: (row := subscriber(looks.look(), "one")).parts_held == 2 and row.lag_messages > 0)
        assert subscriber(looks.look(), "one").lag_messages > 0
        go_on.set()
        eventually(lambda: (row := subscriber(looks.look(), "one")).handled == 100 and row.lag_bytes == 0)
        looks.close()


def test_exactly_once_is_read_from_its_file(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        looks = sampler(data_dir)
        m.subscribe("a", "one", lambda msg: None, exactly_once=True)
        publish(m, "a", *range(10))
        eventually(lambda: (row := subscriber(looks.look(), "one")).handled == 10 and row.state == "idle")
        looks.close()


def test_processes(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "one", lambda msg: None)
        looks = sampler(data_dir)
        writer, this = looks.look().processes
        assert (writer.role, writer.pid, writer.work) == ("writer", writer_pid(data_dir), "open, strict")
        assert (this.role, this.pid, this.work) == ("subscriber", os.getpid(), "a/one")
        assert this.rss_bytes is not None
        assert this.rss_bytes > 10_000_000
        assert looks.look().processes[1].started_unix_s == this.started_unix_s
        looks.close()


def test_a_writer_that_is_killed_and_comes_again(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", *range(10))
        looks = sampler(data_dir)
        looks.look()
        kill_writer(data_dir)
        publish(m, "a", 1, 2)
        assert counted(looks, "a", 2).writer.state == "open"
        publish(m, "a", 1, 2, 3)
        counted(looks, "a", 3)
        looks.close()


def test_a_board_whose_writer_was_killed_says_nothing(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
        looks = sampler(data_dir)
        before = channel(looks.look(), "a")
        kill_writer(data_dir)
        # Its board is there, and another program writes. Who only publishes makes no writer until it does.
        (segment,) = (data_dir / "channels/a").iterdir()
        with segment.open("ab") as file:
            file.write(segment.read_bytes())
        row = channel(looks.look(), "a")
        assert (row.messages_per_s, row.end_offset) == (None, 2 * before.end_offset)
        publish(m, "a", 1)
        eventually(lambda: looks.look().writer.state == "open")
        looks.close()


def test_shared_memory_is_emptied(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyop.live.board._REOPEN_S", 0.0)
    monkeypatch.setattr("keyop.live.ports._REOPEN_S", 0.0)
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
        looks = sampler(data_dir)
        life = looks.look().writer.pid
        for name in objects_of(data_dir):
            (Path("/dev/shm") / name).unlink()
        # The writer leaves; whoever publishes next makes another one.
        eventually(lambda: writer_pid(data_dir) != life)
        publish(m, "a", 1)
        eventually(lambda: (now := looks.look().writer).pid not in (None, life) and now.state == "open")
        publish(m, "a", *range(5))
        eventually(lambda: (channel(looks.look(), "a").messages_per_s or 0) > 0)
        looks.close()


def test_processes_that_come_and_go_leave_nothing_here(data_dir: Path) -> None:
    def mapped() -> int:
        return sum("keyop" in line for line in Path("/proc/self/maps").read_text().splitlines())

    with Messenger(data_dir) as m:
        publish(m, "a", 1)
    before, descriptors = mapped(), len(os.listdir("/proc/self/fd"))
    looks = sampler(data_dir)
    for number in range(20):
        with Child(
            "with Messenger(data_dir) as m: m.subscribe('a', sys.argv[2], print); say('in'); hear()", data_dir, number
        ) as child:
            child.expect("in")
            assert any(child.pid in row.pids for row in looks.look().subscribers)
            child.say()
            child.end()
        looks.look()
    looks.close()
    assert (mapped(), len(os.listdir("/proc/self/fd"))) == (before, descriptors)


def test_nobody_is_there(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
        m.subscribe("a", "one", lambda msg: None)
    end_writer(data_dir)
    before = sorted(os.listdir(data_dir / "run"))
    looks = sampler(data_dir)
    for _ in range(3):
        snapshot = looks.look()
        assert (snapshot.writer.state, snapshot.writer.pid, snapshot.processes) == ("not running", None, ())
        assert channel(snapshot, "a").messages_per_s is None
        assert subscriber(snapshot, "one").state == "away"
    # Nothing was attached, started or left.
    assert writer_pid(data_dir) is None
    assert sorted(os.listdir(data_dir / "run")) == before
    assert objects_of(data_dir) == []


def test_what_another_program_writes_is_seen(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
    end_writer(data_dir)
    looks = sampler(data_dir)
    before = channel(looks.look(), "a")
    (segment,) = (data_dir / "channels/a").iterdir()
    with segment.open("ab") as file:
        file.write(segment.read_bytes())
    after = channel(looks.look(), "a")
    assert after.end_offset == 2 * before.end_offset
    assert (after.messages_per_s, after.bytes_per_s > 0) == (None, True)
    assert channel(looks.look(), "a").bytes_per_s == 0


def test_directories_without_anything(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="there is no such directory"):
        require(DataDirectory(tmp_path / "missing"))
    path = tmp_path / "data"
    path.mkdir()
    looks = sampler(path)
    assert looks.look().writer.state == "empty"
    with Messenger(path) as m:
        publish(m, "a", 1)
        assert channel(looks.look(), "a").end_offset > 0
    end_writer(path)
    shutil.rmtree(path)
    snapshot = looks.look()
    assert (snapshot.writer.state, snapshot.channels) == ("no directory", ())
    looks.close()


def test_a_directory_that_cannot_be_listed(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "a", 1)
    end_writer(data_dir)
    looks = sampler(data_dir)
    (data_dir / "subscribers/b").mkdir()
    (data_dir / "channels/b").write_text("a file where a directory should be")
    snapshot = looks.look()
    assert snapshot.trouble == f"{data_dir}/channels/b: Not a directory"
    assert channel(snapshot, "a").end_offset > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which root alone can")
def test_what_another_user_may_not_see(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, "open", 1)
        publish(m, "closed", 1)
        m.subscribe("open", "one", lambda msg: None)
        for path in (data_dir, *data_dir.parents):
            if Path(tempfile.gettempdir()) in path.parents:
                path.chmod(0o755)
        (data_dir / "channels/closed").chmod(0o700)
        (data_dir / "subscribers").chmod(0o700)
        with Child(
            """
            from keyop.live.sampler import Sampler
            from keyop.storage.directory import DataDirectory
            os.setuid(65534)
            looks = Sampler(DataDirectory(data_dir))
            for _ in range(2):
                found = looks.look()
                say(found.writer.state, [row.channel for row in found.channels], found.trouble)
            """,
            data_dir,
        ) as child:
            for _ in range(2):
                child.expect(f"unseen ['open'] {data_dir}/subscribers: Permission denied")


def test_files_are_looked_at_in_turn(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3 * files._MOST_A_LOOK
    with Messenger(data_dir) as m:
        for number in range(count):
            publish(m, f"c{number}", 1)
    end_writer(data_dir)
    looks = sampler(data_dir)
    read: list[str] = []
    real = files.list_segments
    monkeypatch.setattr(files, "list_segments", lambda path: read.append(path.name) or real(path))
    looks.look()
    assert set(read) == {f"c{number}" for number in range(count)}
    seen: set[str] = set()
    for _ in range(3):
        read.clear()
        looks.look()
        assert len(read) <= files._MOST_A_LOOK
        seen.update(read)
    assert len(seen) == count


def test_the_backlog_is_estimated_where_it_is_long() -> None:
    sample = Sample(offset=0, messages=10, bytes=1000, first_unix_s=None)
    assert sample.messages_in(1000) == (10, True)
    assert sample.messages_in(0) == (0, True)
    assert sample.messages_in(50_000) == (500, False)


def test_a_long_backlog(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "one", lambda msg: None)
    with Messenger(data_dir) as m:
        publish(m, "a", *range(10_000, 15_000))
        row = subscriber(sampler(data_dir).look(), "one")
        assert not row.lag_is_exact
        assert row.lag_messages == pytest.approx(5000, rel=0.02)


def test_counters_that_begin_anew() -> None:
    rates = Rates()
    rates.begin(0)
    assert rates.per_s("a", 10) == 0
    rates.begin(2)
    assert rates.per_s("a", 30) == 10
    rates.begin(1)
    assert rates.per_s("a", 5) == 5
    rates.begin(1)
    rates.begin(1)
    assert rates.per_s("a", 7) == 0  # it was not there in the look before


def test_json(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.subscribe("a", "one", lambda msg: None)
        publish(m, "a", 1)
        text = json.dumps(sampler(data_dir).look().to_json())
    found = json.loads(text)
    assert found["data_dir"] == str(data_dir)
    assert found["writer"]["state"] == "open"
    assert [row["channel"] for row in found["channels"]] == ["a"]
    assert found["subscribers"][0]["pids"] == [os.getpid()]


def test_usage_of_a_process() -> None:
    this = usage(os.getpid())
    assert this is not None
    with open("/proc/self/status") as file:
        (rss,) = [line.split()[1] for line in file if line.startswith("VmRSS")]
    assert this.rss_bytes == pytest.approx(int(rss) * 1024, rel=0.1)
    while (now := usage(os.getpid())) is not None and now.cpu_s == this.cpu_s:
        pass  # until the clock of the processor times ticks
    assert now is not None
    assert now.cpu_s > this.cpu_s
    assert now.started_unix_s == pytest.approx(this.started_unix_s, abs=0.1)
    assert usage(2**22 + 1) is None
