"""The writer process: who may be one, how it ends, what a bad file or a full disk does to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import eventually, kill_writer, writer_pid
from conftest import leave, objects_of
from writers import TINY, Writer

from keyop import Messenger
from keyop.errors import DataDirectoryError, OffsetDamaged, PublishTimeout, SubscriberBusy
from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.ipc.names import DirectoryIdentity
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import read_offset
from keyop.storage.segments import list_segments, segment_name
from keyop.writer.process import EXIT_BUSY, EXIT_CANNOT_START, EXIT_OK, EXIT_UNDRAINED

FIXTURES = Path(__file__).parent / "fixtures"


def numbers(data_dir: Path, channel: str = "c") -> list[int]:
    lines = b"".join(at.path.read_bytes() for at in list_segments(DataDirectory(data_dir).channel(channel))[0])
    return [json.loads(line)["payload"]["n"] for line in lines.split(b"\n")[:-1]]


def publish(m: Messenger, *ns: int, channel: str = "c", timeout: float | None = None) -> None:
    for n in ns:
        m.publish(channel, {"n": n}, payload_type="t", timeout=timeout)


def state(data_dir: Path) -> int | None:
    board = Board.open(DirectoryIdentity(data_dir / "run"))
    if board is None:
        return None
    found = board.state
    board.close()
    return found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- one writer


def test_a_second_writer_is_refused_and_told_who_is_there(data_dir: Path) -> None:
    with Writer(data_dir) as first:
        second = Writer(data_dir)
        assert second.end() == EXIT_BUSY
        assert second.said("busy")
        on_demand = Writer(data_dir, on_demand=True)
        assert on_demand.end() == EXIT_BUSY
        assert f"pid {first.process.pid}" in "".join(on_demand.lines)


def test_a_foreground_writer_takes_over_from_one_on_demand(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        publish(m, 1)
        pid = writer_pid(data_dir)
        with Writer(data_dir) as foreground:
            assert writer_pid(data_dir) == foreground.process.pid != pid
            publish(m, 2)
            m.close()
        assert numbers(data_dir) == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(data_dir: Path, number: int) -> None:
    with Writer(data_dir) as writer:
        with Messenger(data_dir) as m:
            m.subscribe("c", "s", lambda message: None)
            publish(m, *range(10))
            eventually(lambda: _offset(data_dir) == _size(data_dir))
        assert objects_of(data_dir)
        assert writer.end(number) == EXIT_OK
    assert objects_of(data_dir) == []
    journal = DataDirectory(data_dir).journal
    assert all((journal / name).read_bytes()[:1024] == bytes(1024) for name in ("a.journal", "b.journal"))
    assert numbers(data_dir) == list(range(10))


def _offset(data_dir: Path, id: str = "s") -> int:
    found = read_offset(DataDirectory(data_dir).offset_file("c", id))
    return -1 if found is None else found.value


def _size(data_dir: Path) -> int:
    return (DataDirectory(data_dir).channel("c") / segment_name(0)).stat().st_size


def test_it_leaves_when_nobody_is_attached_and_stays_while_somebody_is(data_dir: Path) -> None:
    with Writer(data_dir, on_demand=True, idle_exit=0.3) as writer:
        with Messenger(data_dir) as m:
            publish(m, 1)
            time.sleep(1.0)  # longer than the idle exit and a tick
            assert writer.process.poll() is None
        assert writer.end() == EXIT_OK
    assert objects_of(data_dir) == []


def test_who_comes_while_it_leaves_gets_the_next(data_dir: Path) -> None:
    """Idle exits under a process that attaches and leaves again and again."""
    for n in range(6):
        writer = Writer(data_dir, on_demand=True, idle_exit=0.01)
        with Messenger(data_dir) as m:
            publish(m, n)
        writer.end(signal.SIGTERM if writer.process.poll() is None else None)
    assert numbers(data_dir) == list(range(6))


def test_the_board_of_a_killed_writer_is_replaced(data_dir: Path) -> None:
    with Writer(data_dir) as first:
        first.end(signal.SIGKILL)
    assert state(data_dir) == layout.OPEN
    assert len(objects_of(data_dir)) == 2
    with Writer(data_dir), Messenger(data_dir) as m:
        publish(m, 1)
    assert objects_of(data_dir) == []


def test_what_a_crash_left_in_shared_memory_is_swept(data_dir: Path) -> None:
    """A port without a lease, a lease without a port, files that are neither."""
    with Writer(data_dir):
        pass
    key = DirectoryIdentity(data_dir / "run").key
    (Path("/dev/shm") / f"keyop-{key}-0123abcd").write_bytes(b"x")
    (Path("/dev/shm") / f"sem.keyop-{key}-0123abcdc").write_bytes(b"x")
    run = data_dir / "run"
    for name in ("port-00000001", ".new-00000002", "port-not-a-port", "port-", "port-" + "x" * 240):
        (run / name).write_bytes(b"")
    with Writer(data_dir, on_demand=True, idle_exit=0.1) as writer:
        assert writer.end() == EXIT_OK
    assert objects_of(data_dir) == []
    assert not (run / "port-00000001").exists()
    assert not (run / ".new-00000002").exists()


# ---- directories that will not do


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    writer = Writer(path)
    assert writer.end() == EXIT_CANNOT_START
    assert writer.said("cannot_start")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as somebody else here")
def test_a_data_directory_that_belongs_to_somebody_else_is_written_as_them(tmp_path: Path) -> None:
    """Root becomes the directory's owner; what it makes there is the owner's."""
    data_dir = Path("/tmp") / f"keyop-owner-{os.getpid()}"
    data_dir.mkdir(mode=0o755)
    try:
        os.chown(data_dir, 12345, 12345)
        with Writer(data_dir):
            assert (data_dir / "channels").stat().st_uid == 12345
        (data_dir / "channels").rmdir()
        os.chown(data_dir / "journal", 0, 0)
        data_dir.chmod(0o555)
        writer = Writer(data_dir)
        assert writer.end() == EXIT_CANNOT_START
        assert "permission" in "".join(writer.lines).lower()
    finally:
        shutil.rmtree(data_dir)


def test_a_network_file_system_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    mountinfo = f"1 2 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/x rw\n"
    read_text = Path.read_text

    def fake(path: Path, *given: object, **named: object) -> str:
        return mountinfo if str(path) == "/proc/self/mountinfo" else read_text(path, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", fake)
    monkeypatch.delenv("KEYOP_ALLOW_NETWORK_FS", raising=False)
    with pytest.raises(DataDirectoryError, match="nfs4"):
        DataDirectory(tmp_path).refuse_network_file_system()
    monkeypatch.setenv("KEYOP_ALLOW_NETWORK_FS", "1")
    DataDirectory(tmp_path).refuse_network_file_system()


# ---- files that will not do


def test_a_bad_offset_file_stops_nobody(data_dir: Path) -> None:
    """Case 8: one is a directory. Its subscriber is served, the others too, and the writer can be started again."""
    directory = DataDirectory(data_dir)
    (directory.offsets("c") / "dir.offset").mkdir(parents=True)
    (directory.offsets("c") / "bad.offset").write_bytes(b"0x10")
    got: dict[str, list[int]] = {"dir": [], "bad": [], "good": []}
    for _ in range(2):
        with Writer(data_dir) as writer, Messenger(data_dir) as m:
            for id, list_of in got.items():
                m.subscribe("c", id, lambda message, to=list_of: to.append(message.payload["n"]), start="earliest")
            n = len(numbers(data_dir))
            publish(m, n)
            eventually(lambda n=n: all(found and found[-1] == n for found in got.values()))
        assert writer.said("offset_not_filed")
    assert got["good"] == [0, 1]
    assert got["bad"] == [0, 1]
    (directory.offsets("c") / "once.offset").write_bytes(b"junk")
    with Messenger(data_dir) as m, pytest.raises(OffsetDamaged):
        m.subscribe("c", "once", lambda message: None, exactly_once=True)


def test_a_foreign_file_a_gap_and_an_overlap_among_the_segments(data_dir: Path) -> None:
    directory = DataDirectory(data_dir)
    with Messenger(data_dir) as m:
        publish(m, 0)
    leave(data_dir)
    path = directory.channel("c") / segment_name(0)
    line = path.read_bytes()
    for start in (len(line) - 10, 1000):
        (directory.channel("c") / segment_name(start)).write_bytes(line)
    for name in ("5.jsonl", "-1.jsonl", "x.jsonl.gz", ".offset.tmp"):
        (directory.channel("c") / name).write_bytes(b"junk")
    (directory.channel("c") / "sub").mkdir()
    got: list[int] = []
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", lambda message: got.append(message.payload["n"]), start="earliest")
        publish(m, 1)
        eventually(lambda: got == [0, 0, 0, 1])


def test_an_unfinished_line_is_cut_and_a_foreign_append_makes_it_begin_again(data_dir: Path) -> None:
    """Cases 1, 2 and 18."""
    directory = DataDirectory(data_dir)
    with Messenger(data_dir) as m:
        publish(m, 0)
    path = directory.channel("c") / segment_name(0)
    line = path.read_bytes()
    with path.open("ab") as file:
        file.write(line[:-1])
    with Messenger(data_dir) as m:
        publish(m, 1)
        assert numbers(data_dir) == [0, 1]
        publish(m, 2)
        pid = writer_pid(data_dir)
        foreign = line.replace(b'"n":0', b'"n":7').replace(line[14:30], b"0123456789abcdef")
        with path.open("ab") as file:
            file.write(foreign)
        publish(m, 3)
        assert numbers(data_dir) == [0, 1, 2, 7, 3]
        assert writer_pid(data_dir) != pid


def test_a_go_directory_is_read_and_continued(data_dir: Path) -> None:
    shutil.copytree(FIXTURES / "go-datadir", data_dir)
    directory = DataDirectory(data_dir)
    channels = sorted(path.name for path in directory.channels.iterdir())
    before = {path: path.read_bytes() for path in directory.channels.rglob("*.jsonl")}
    with Messenger(data_dir) as m:
        for channel in channels:
            if not channel.endswith(".dead-letter"):
                m.publish(channel, {"n": 1}, payload_type="t")
    for path, data in before.items():
        assert path.read_bytes().startswith(data), path
    for channel in channels:
        segments = list_segments(directory.channel(channel))[0]
        assert {segment.path for segment in segments} == {path for path in before if path.parent.name == channel}
        grown = [segment.path for segment in segments if segment.path.read_bytes() != before[segment.path]]
        assert grown == ([] if channel.endswith(".dead-letter") else [segments[-1].path])


def test_a_go_subscriber_goes_on_where_it_stopped(data_dir: Path) -> None:
    shutil.copytree(FIXTURES / "go-datadir", data_dir)
    directory = DataDirectory(data_dir)
    offset = int(directory.offset_file("alerts", "notifier").read_text())
    lines = (directory.channel("alerts") / segment_name(0)).read_bytes()
    got: list[int] = []
    with Messenger(data_dir) as m:
        m.subscribe("alerts", "notifier", lambda message: got.append(message.offset))
        m.publish("alerts", {"n": 1}, payload_type="t")
        unread = lines[offset:].count(b"\n") + 1
        eventually(lambda: len(got) == unread)
    assert got[0] == offset
    assert got[-1] == len(lines)


# ---- the rest of what it does


def test_the_journal_turns_under_load_and_all_is_there(data_dir: Path) -> None:
    with Writer(data_dir, **TINY), Messenger(data_dir) as m:
        for n in range(0, 1500, 3):
            m.publish_batch("c", [{"n": n + i, "pad": "x" * 100} for i in range(3)], payload_type="t")
    assert numbers(data_dir) == list(range(1500))


def test_more_subscriptions_than_fit_into_a_frame_of_cursors(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 1,000 cursors that move at once: none is left behind at the stop."""
    count = 1100
    with Writer(data_dir, on_demand=True, **TINY) as writer:
        with Messenger(data_dir) as m:
            done = threading.Semaphore(0)
            for number in range(count):
                m.subscribe("c", f"s{number}", lambda message: done.release(), start="earliest")
            publish(m, 0)
            for _ in range(count):
                assert done.acquire(timeout=30)
            assert writer.end(signal.SIGTERM) == EXIT_OK
        assert [id for id in range(count) if _offset(data_dir, f"s{id}") != _size(data_dir)] == []


def test_an_idle_writer_does_not_spin_on_a_process_that_takes_no_answers(data_dir: Path) -> None:
    """Stopped with answers outstanding: its ring waits, nobody else does, and nothing burns."""
    from child import Child

    source = """
    from keyop.protocol import entry
    m = Messenger(data_dir)
    attachment = m._attachment
    attachment.replies._take = lambda: None
    for _ in range(200):
        attachment.send(entry.TRANSACTION.pack(0) + entry.encode(entry.CLOSE + 90, b"c"))
    say("sent")
    hear()
    """
    with Writer(data_dir) as writer, Child(source, data_dir) as child, Messenger(data_dir) as m:
        child.expect("sent")
        child.signal(signal.SIGSTOP)
        publish(m, 0)
        before = cpu_s(writer.process.pid)
        time.sleep(1.0)  # what is measured
        assert cpu_s(writer.process.pid) - before < 0.3
        publish(m, 1)
        child.kill()
        eventually(lambda: len([name for name in os.listdir(data_dir / "run") if name.startswith("port-")]) == 1)
        publish(m, 2)
    assert numbers(data_dir) == [0, 1, 2]


def test_names_that_are_paths_are_refused_by_the_writer_too(data_dir: Path) -> None:
    victim = data_dir.parent / "x.offset"
    with Messenger(data_dir) as m:
        victim.write_text("7")
        for channel, id in ((b"c", b"../../../x"), (b"../c", b"x"), (b"c", b""), (b"c", b"\xff")):
            for kind in (entry.FORGET, entry.SET):
                with pytest.raises(Exception, match=r"."):
                    m._attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(kind, channel, id), "c")
        publish(m, 0)
    assert victim.read_text() == "7"


def test_a_crash_of_any_thread_ends_the_writer(data_dir: Path) -> None:
    from child import Child

    from keyop.protocol.writer_options import WriterOptions

    source = """
    from keyop.writer import checkpoint
    def broken(*given):
        raise RuntimeError("broken")
    checkpoint.Checkpointer._do = broken
    from keyop.writer.__main__ import main
    os._exit(main(sys.argv[2:]))
    """
    arguments = [*WriterOptions(str(data_dir)).to_arguments(), "on_demand=1"]
    with Child(source, data_dir, *arguments) as child:
        eventually(lambda: state(data_dir) == layout.OPEN if (data_dir / "run" / "id").exists() else False)
        with Messenger(data_dir) as m:
            publish(m, 0)
            m._attachment.transact(entry.TRANSACTION.pack(0) + entry.encode(entry.CHECKPOINT), "c")
            assert child.end() == 70
            publish(m, 1)
    assert numbers(data_dir) == [0, 1]


def test_an_id_that_one_process_forgets_while_another_opens_it(data_dir: Path) -> None:
    """Both in one round, whichever ring comes first: the new subscription is held, and begins anew."""
    for n in range(6):
        with Writer(data_dir) as writer, Messenger(data_dir) as old, Messenger(data_dir) as new:
            publish(old, n)
            old.subscribe("c", "s", lambda message: None)
            got: list[int] = []

            def open_it(new: Messenger = new, got: list[int] = got) -> None:
                while True:
                    try:
                        new.subscribe("c", "s", lambda message: got.append(message.payload["n"]), start="earliest")
                    except SubscriberBusy:
                        continue
                    return

            threads = [threading.Thread(target=old.unsubscribe, args=("c", "s")), threading.Thread(target=open_it)]
            writer.process.send_signal(signal.SIGSTOP)
            for thread in threads:
                thread.start()
            heads = [m._attachment._words for m in (old, new)]
            eventually(lambda heads=heads: all(words[layout.HEAD] != words[layout.COMMITTED] for words in heads))
            writer.process.send_signal(signal.SIGCONT)
            for thread in threads:
                thread.join(20)
            publish(old, 100)
            eventually(lambda got=got: bool(got) and got[-1] == 100)
            assert got[0] == 0 or n
            eventually(lambda: _offset(data_dir) == _size(data_dir))
            new.unsubscribe("c", "s")
            assert _offset(data_dir) == -1


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield path
        leave(path / "data")
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    with (path / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break


def until_it_waits(m: Messenger) -> tuple[int, str]:
    """Publish from 1 on until one is not committed in time: which, and what the error says."""
    n = 1
    while True:
        try:
            publish(m, n, timeout=0.4)
        except PublishTimeout as error:
            return n, str(error)
        n += 1


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    with Writer(data_dir, **TINY) as writer, Messenger(data_dir) as m:
        publish(m, 0)
        fill(small_disk)
        n, why = until_it_waits(m)
        assert "may still be committed" in why
        assert "stalled" in why
        assert state(data_dir) == layout.STALLED
        assert writer.said("stalled")
        waiting = threading.Thread(target=publish, args=(m, n + 1))
        waiting.start()
        (small_disk / "filler").unlink()
        waiting.join(20)
        assert not waiting.is_alive()
        publish(m, n + 2)
        assert state(data_dir) == layout.OPEN
        writer.wait_for("recovered")
    assert numbers(data_dir) == list(range(n + 3))


def test_a_channel_that_cannot_be_made_waits_alone(small_disk: Path) -> None:
    """What needs no new block goes on; whose channel needs one waits, without the state flickering."""
    data_dir = small_disk / "data"
    with Writer(data_dir) as writer, Messenger(data_dir) as m, Messenger(data_dir) as other:
        publish(m, 0)
        limit = subprocess.run(
            ["mount", "-o", "remount,nr_inodes=1", str(small_disk)], capture_output=True, check=False
        )
        if limit.returncode:
            used = sum(1 for _ in small_disk.rglob("*")) + 1
            subprocess.run(["mount", "-o", f"remount,nr_inodes={used}", str(small_disk)], check=True)
        waiting = threading.Thread(target=publish, args=(other, 0), kwargs={"channel": "new"})
        waiting.start()
        writer.wait_for("stalled")
        for n in range(1, 50):
            publish(m, n)
        assert state(data_dir) == layout.STALLED
        assert sum("stalled" in line for line in writer.lines) == 1
        subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(small_disk)], check=True)
        waiting.join(20)
        assert not waiting.is_alive()
        assert state(data_dir) == layout.OPEN
    assert numbers(data_dir) == list(range(50))
    assert numbers(data_dir, "new") == [0]


def test_a_signal_during_a_stall_leaves_the_journal_to_the_next(small_disk: Path) -> None:
    """Cases 11 and 19: also with a roll in the middle."""
    data_dir = small_disk / "data"
    writer = Writer(data_dir, **TINY)
    writer.wait_for("open")
    with Messenger(data_dir) as m:
        publish(m, 0)
        fill(small_disk)
        n, _ = until_it_waits(m)
        began_s = time.monotonic()
        assert writer.end(signal.SIGTERM) == EXIT_UNDRAINED
        assert time.monotonic() - began_s < 12
        (small_disk / "filler").unlink()
        publish(m, n + 1)
    assert numbers(data_dir) == list(range(n + 2))


def test_a_start_on_a_full_disk_waits_too(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    env = {"KEYOP_CRASH_AT": "segment.created:1"}
    with Writer(data_dir, on_demand=True, env=env, **TINY) as first, Messenger(data_dir) as m:
        n = 0
        while first.process.poll() is None:
            try:
                publish(m, n, timeout=0.2)
            except PublishTimeout:
                pass
            n += 1
    leave(data_dir)
    for path in DataDirectory(data_dir).journal.glob("*.journal"):
        path.unlink()
    fill(small_disk)
    writer = Writer(data_dir, **TINY)
    writer.wait_for("stalled")
    assert writer.end(signal.SIGTERM) == EXIT_UNDRAINED
    assert objects_of(data_dir) == []
    writer = Writer(data_dir, **TINY)
    writer.wait_for("stalled")
    (small_disk / "filler").unlink()
    writer.wait_for("open")
    assert writer.end(signal.SIGTERM) == EXIT_OK
    assert numbers(data_dir) == list(range(n))


def test_offsets_that_the_journal_holds_are_put_where_they_may_stand(data_dir: Path) -> None:
    """A copy that was cut short: cursors beyond the end go to the end, those in a record to its start."""
    directory = DataDirectory(data_dir)
    with Writer(data_dir), Messenger(data_dir) as m:
        publish(m, *range(4))
    lines = (directory.channel("c") / segment_name(0)).read_bytes()
    one = lines.index(b"\n") + 1
    directory.offsets("c").mkdir(exist_ok=True)
    write_offset(directory.offset_file("c", "far"), 10 * len(lines))
    write_offset(directory.offset_file("c", "inside"), one + 5)
    got: dict[str, list[int]] = {"far": [], "inside": []}
    with Messenger(data_dir) as m:
        for id, found in got.items():
            m.subscribe("c", id, lambda message, to=found: to.append(message.payload["n"]))
        publish(m, 4)
        eventually(lambda: got == {"far": [4], "inside": [1, 2, 3, 4]})


def test_a_killed_writer_is_followed_by_another_at_once(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        for n in range(5):
            publish(m, n)
            kill_writer(data_dir)
        publish(m, 5)
    assert numbers(data_dir) == list(range(6))
