"""Processes that fork, die, are interrupted, or lose their shared memory; and the writer that comes and goes."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child import ROOT, Child, eventually, freeze, kill_writer, writer_pid
from conftest import end_writer, leave, objects_of
from inbox import Inbox

from keyop import Messenger
from keyop.attachment import attachment as attachment_module
from keyop.attachment import spawn, writer_link
from keyop.configuration.lookup import settings_for
from keyop.errors import DataDirectoryError, PublishError, SharedMemoryError, SubscribeError, WriterUnavailable
from keyop.ipc import layout, lease, port
from keyop.ipc.board import Board
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.port import Port
from keyop.protocol import entry

DEADLINE_S = 30.0
TYPE = "com.example.test.v1"
SHM = Path("/dev/shm")

needs_shm = pytest.mark.skipif(not SHM.is_dir(), reason="shared memory cannot be seen here")


def payloads(data_dir: Path, channel: str = "c") -> list[Any]:
    paths = sorted((data_dir / "channels" / channel).glob("*.jsonl"))
    return [json.loads(line)["payload"] for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


def empty_shared_memory(data_dir: Path) -> None:
    """What logind's RemoveIPC does."""
    for name in objects_of(data_dir):
        (SHM / name).unlink(missing_ok=True)


# ---- fork


def test_a_forked_child_publishes_and_the_parents_subscriptions_stay_the_parents(data_dir: Path) -> None:
    source = """
        import warnings
        m = Messenger(data_dir)
        def handle(message):
            say("pid", os.getpid() == first, message.payload)
        first = os.getpid()
        m.subscribe("c", "s", handle)
        m.publish("c", "parent", payload_type="t")
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks beside threads
        pid = os.fork()
        if pid == 0:
            for number in range(3):
                m.publish("c", number, payload_type="t")
            assert m._subscriptions == {}
            m.subscribe("c", "child", lambda message: None)
            m.close()
            try:
                m.publish("c", "closed", payload_type="t")
            except ClosedError:
                pass
            else:
                os._exit(3)
            os._exit(0)
        code = os.waitpid(pid, 0)[1]
        m.publish("c", "after", payload_type="t")
        say("child", code)
        hear()
        m.close()
        say("closed")
    """
    with Child(source, data_dir) as child:
        heard = [child.hear() for _ in range(6)]
        assert sorted(heard) == sorted([
            "pid True parent", "pid True 0", "pid True 1", "pid True 2", "pid True after", "child 0",
        ])  # fmt: skip
        child.say()
        child.expect("closed")
        assert child.end() == 0
        assert child.errors == ""
    assert payloads(data_dir) == ["parent", 0, 1, 2, "after"]
    assert (data_dir / "subscribers/c/s.offset").exists()


def test_children_of_children_and_ids_that_never_repeat(data_dir: Path) -> None:
    source = """
        m = Messenger(data_dir)
        m.publish("c", 0, payload_type="t")
        pids = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                m.publish("c", number, payload_type="t")
                inner = os.fork()
                if inner == 0:
                    m.publish("c", number, payload_type="t")
                    os._exit(0)
                os._exit(os.waitpid(inner, 0)[1])
            pids.append(pid)
        say(*[os.waitpid(pid, 0)[1] for pid in pids])
        m.publish("c", 0, payload_type="t")
        m.close()
    """
    with Child(source, data_dir) as child:
        child.expect("0 0 0")
        assert child.end() == 0
    lines = (data_dir / "channels/c/00000000000000000000.jsonl").read_bytes().split(b"\n")[:-1]
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 8


def _publish_in_child(m: Messenger, number: int) -> None:
    m.publish("c", number, payload_type=TYPE)


def test_multiprocessing_by_fork(data_dir: Path) -> None:
    context = multiprocessing.get_context("fork")
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        workers = [context.Process(target=_publish_in_child, args=(m, number)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(DEADLINE_S)
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert sorted(inbox.take(4)) == [0, 1, 2, 3]
        m.publish("c", 4, payload_type=TYPE)
        assert inbox.next().payload == 4
        eventually(lambda: len(list((data_dir / "run").glob("port-*"))) == 1)


def test_a_child_that_is_forked_in_an_atomic_block_publishes_nothing_of_it(data_dir: Path) -> None:
    source = """
        m = Messenger(data_dir)
        with m.atomic() as tx:
            tx.publish("c", "once", payload_type="t")
            pid = os.fork()
        if pid == 0:
            m.publish("c", "child", payload_type="t")
            os._exit(0)
        say(os.waitpid(pid, 0)[1])
        m.close()
    """
    with Child(source, data_dir) as child:
        child.expect("0")
        assert child.end() == 0
    assert sorted(payloads(data_dir)) == ["child", "once"]


def test_a_fork_while_other_threads_publish(data_dir: Path) -> None:
    """Their locks may be held at that moment, and stay so in the child."""
    source = """
        m = Messenger(data_dir)
        stop = False
        def publish():
            while not stop:
                m.publish("busy", 1, payload_type="t")
        threads = [threading.Thread(target=publish, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(10):
            pid = os.fork()
            if pid == 0:
                m.publish("c", number, payload_type="t", timeout=15)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop = True
        for thread in threads:
            thread.join(15)
        m.close()
        say("done")
    """
    with Child(source, data_dir) as child:
        child.expect("done")
        assert child.end() == 0
    assert payloads(data_dir) == list(range(10))


def test_a_forked_child_does_not_keep_its_killed_parents_subscriptions(data_dir: Path) -> None:
    """It has closed the parent's lease: the id is free at once, though the child lives on."""
    source = """
        m = Messenger(data_dir)
        m.subscribe("c", "s", lambda message: None)
        pid = os.fork()
        if pid == 0:
            say("child", os.getpid())
            time.sleep(60)
        m.publish("c", 1, payload_type="t")
        say("parent")
        time.sleep(60)
    """
    with Child(source, data_dir) as child, Messenger(data_dir) as m:
        heard = sorted([child.hear(), child.hear()])
        assert heard[1] == "parent"
        child.process.kill()
        child.process.wait()
        try:
            inbox = Inbox()
            m.subscribe("c", "s", inbox)
            m.publish("c", 2, payload_type=TYPE)
            assert inbox.next().payload in (1, 2)
        finally:
            os.kill(int(heard[0].split()[1]), signal.SIGKILL)


# ---- shared memory that vanishes


@needs_shm
@pytest.mark.parametrize("kill", [False, True], ids=["writer notices", "writer dies too"])
@pytest.mark.parametrize("exactly_once", [False, True])
def test_shared_memory_emptied_under_running_processes(data_dir: Path, kill: bool, exactly_once: bool) -> None:
    """Everything goes on; nothing is lost and nothing comes twice."""
    source = """
        m = Messenger(data_dir)
        number = 0
        say("ready")
        while True:
            m.publish("c", ["child", number], payload_type="t")
            number += 1
            if number in (200, 400, 600):
                say(number)
            if number == 600:
                break
        m.close()
        say("closed")
    """
    with Messenger(data_dir) as m:
        inbox, idle = Inbox(), Inbox()
        m.subscribe("c", "s", inbox, exactly_once=exactly_once)
        m.subscribe("idle", "s", idle)
        with Child(source, data_dir) as child:
            child.expect("ready")
            number = 0
            for milestone in ("200", "400", "600"):
                heard = threading.Event()
                listener = threading.Thread(target=lambda: (child.expect(milestone), heard.set()))  # noqa: B023
                listener.start()
                while not heard.is_set():
                    m.publish("c", ["parent", number], payload_type=TYPE, timeout=DEADLINE_S)
                    number += 1
                listener.join(DEADLINE_S)
                if milestone == "600":
                    break
                pid = writer_pid(data_dir)
                empty_shared_memory(data_dir)
                if kill and pid is not None:
                    os.kill(pid, signal.SIGKILL)
                eventually(lambda: writer_pid(data_dir) not in (None, pid), DEADLINE_S)  # noqa: B023
            child.expect("closed")
            assert child.end() == 0
        got = inbox.take(number + 600)
        assert [turn for who, turn in got if who == "parent"] == list(range(number))
        assert [turn for who, turn in got if who == "child"] == list(range(600))
        m.publish("idle", "still there", payload_type=TYPE)
        assert idle.next().payload == "still there"
        eventually(lambda: all(one.lag_bytes == 0 for one in m.stats().subscribers))
        assert inbox.messages.empty()
    assert sorted(payloads(data_dir)) == sorted(got)


@needs_shm
def test_shared_memory_emptied_while_a_publish_waits(data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish("c", 0, payload_type=TYPE)
        pid = writer_pid(data_dir)
        assert pid is not None
        freeze(pid)
        publishers = [
            threading.Thread(target=m.publish, args=("c", number), kwargs={"payload_type": TYPE}, daemon=True)
            for number in range(1, 5)
        ]
        for publisher in publishers:
            publisher.start()
        eventually(lambda: m._attachment.commit_gate.busy and len(m._attachment.commit_gate._waiters) == 3)
        empty_shared_memory(data_dir)
        os.kill(pid, signal.SIGKILL)
        for publisher in publishers:
            publisher.join(DEADLINE_S)
            assert not publisher.is_alive()
        m.publish("c", 5, payload_type=TYPE)
    assert sorted(payloads(data_dir)) == [0, 1, 2, 3, 4, 5]


def test_who_waits_for_room_is_not_overtaken_for_ever(data_dir: Path) -> None:
    """While one waits for room for much, another's little goes in, and is committed at once with what made the room."""
    with Messenger(data_dir) as m:
        m.publish("c", 0, payload_type=TYPE)
        pid = writer_pid(data_dir)
        assert pid is not None
        gate, ring = m._attachment.commit_gate, m._attachment._ring

        def publish(payload: str) -> threading.Thread:
            thread = threading.Thread(target=m.publish, args=("c", payload), kwargs={"payload_type": TYPE}, daemon=True)
            thread.start()
            return thread

        freeze(pid)
        first = ring.head
        publishers = [publish("x" * 100_000), publish("x" * 100_000)]
        eventually(lambda: ring.head - first & layout.MASK > 200_000 and len(gate._waiters) == 1)
        publishers.append(publish("y" * 100_000))
        eventually(lambda: len(gate._waiters) == 2)
        publishers.append(publish("z"))
        eventually(lambda: len(gate._waiters) == 3)
        os.kill(pid, signal.SIGCONT)
        for publisher in publishers:
            publisher.join(DEADLINE_S)
            assert not publisher.is_alive()
    assert sorted(map(str, payloads(data_dir))) == ["0", "x" * 100_000, "x" * 100_000, "y" * 100_000, "z"]


@needs_shm
def test_the_ports_alone_vanish(data_dir: Path) -> None:
    """The writer has them mapped and goes on; they are made anew for the next one."""
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        for name in objects_of(data_dir):
            if not name.endswith(("-b", "-w")):
                (SHM / name).unlink()
        m.publish("c", 1, payload_type=TYPE)
        assert inbox.next().payload == 1
        kill_writer(data_dir)
        m.publish("c", 2, payload_type=TYPE)
        assert inbox.next().payload == 2


# ---- a full /dev/shm


def _can_mount() -> bool:
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.skipif(shutil.which("unshare") is None or not _can_mount(), reason="needs the right to mount a tmpfs")
def test_a_full_dev_shm_is_an_error_that_names_the_way_out(data_dir: Path) -> None:
    source = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from keyop import Messenger
from keyop.errors import SharedMemoryError
open("/dev/shm/ballast", "wb").write(bytes(900_000))
try:
    Messenger(sys.argv[1])
except SharedMemoryError as error:
    print(error)
print(sorted(os.listdir("/dev/shm")), sorted(os.listdir(sys.argv[1] + "/run")))
os.remove("/dev/shm/ballast")
with Messenger(sys.argv[1]) as m:
    m.publish("c", 1, payload_type="t")
    print("published")
    pid = int(open(sys.argv[1] + "/run/writer.lock").read().split()[1])
os.kill(pid, 15)
"""
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable, source, str(data_dir)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert "shared memory is full" in lines[0], done.stderr
    assert "--shm-size" in lines[0]
    assert lines[1] == "['ballast'] ['id']"
    assert lines[2] == "published"
    eventually(lambda: writer_pid(data_dir) is None)


def test_who_cannot_have_a_port_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Messenger(data_dir):
        before = objects_of(data_dir)

        def full(_fd: int, _offset: int, _length: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(SharedMemoryError, match="--shm-size"):
            Messenger(data_dir)
        monkeypatch.undo()
        assert objects_of(data_dir) == before
        assert len(list((data_dir / "run").glob("*port-*"))) == 1
        assert not list((data_dir / "run").glob(".new-*"))


# ---- the writer comes and goes


def test_a_writer_killed_under_idle_subscribers(data_dir: Path) -> None:
    """Somebody starts the next one before anybody publishes; the next publish is delivered."""
    with (
        Messenger(data_dir) as m,
        Child(
            """
            m = Messenger(data_dir)
            m.subscribe("c", "other", lambda message: say(message.payload))
            say("ready")
            m.run()
            """,
            data_dir,
        ) as child,
    ):
        child.expect("ready")
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        for number in range(3):
            kill_writer(data_dir)
            eventually(lambda: writer_pid(data_dir))
            m.publish("c", number, payload_type=TYPE)
            assert inbox.next().payload == number
            child.expect(str(number))


def test_a_writer_stopped_under_running_publishers(data_dir: Path) -> None:
    """By SIGTERM, with its drain and checkpoint: they go on with the next one, in order and without a gap."""
    each = 150
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)

        def publish(number: int) -> None:
            for turn in range(each):
                m.publish("c", [number, turn], payload_type=TYPE, timeout=DEADLINE_S)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        got = inbox.take(50)
        for _ in range(2):
            kill_writer(data_dir, signal.SIGTERM)
            got += inbox.take(50)
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        got += inbox.take(4 * each - len(got))
        for number in range(4):
            assert [turn for who, turn in got if who == number] == list(range(each))
    assert payloads(data_dir) == got


def test_periodic_publishers_go_on_across_writers(data_dir: Path) -> None:
    settings = settings_for(data_dir, storage={"sync_interval_ms": 200})
    with Messenger(settings) as m:
        for number in range(3000):
            m.publish("c", number, payload_type=TYPE)
            if number in (500, 1500, 2500):
                kill_writer(data_dir, signal.SIGKILL if number == 1500 else signal.SIGTERM)
    assert payloads(data_dir) == list(range(3000))


def test_a_writer_leaves_when_nobody_is_attached_and_the_next_user_starts_one(data_dir: Path) -> None:
    settings = settings_for(data_dir)
    settings = replace(settings, writer=replace(settings.writer, idle_exit=0.05))
    for number in range(3):
        with Messenger(settings) as m:
            m.publish("c", number, payload_type=TYPE)
        eventually(lambda: writer_pid(data_dir) is None)
        assert objects_of(data_dir) == []
        assert "nobody is attached" in (data_dir / "run/writer.log").read_text()
    assert payloads(data_dir) == [0, 1, 2]


def test_attaching_while_the_writer_leaves(data_dir: Path) -> None:
    """Whoever comes in that moment finds this writer or starts the next; nobody waits for long or in vain."""
    settings = settings_for(data_dir)
    settings = replace(settings, writer=replace(settings.writer, idle_exit=0.01))
    began = time.monotonic()
    for number in range(12):
        with Messenger(settings) as m:
            m.publish("c", number, payload_type=TYPE, timeout=DEADLINE_S)
        if number % 3:
            until = time.monotonic() + 0.1 * number
            eventually(lambda: time.monotonic() > until or writer_pid(data_dir) is None)  # noqa: B023
    assert time.monotonic() - began < DEADLINE_S
    assert payloads(data_dir) == list(range(12))


def test_eight_processes_that_start_at_once_get_one_writer(data_dir: Path) -> None:
    source = """
        say("up"); hear()
        with Messenger(data_dir) as m:
            m.publish("c", int(sys.argv[2]), payload_type="t")
            say((data_dir / "run/writer.lock").read_text().split()[1]); hear()
    """
    children = [Child(source, data_dir, number) for number in range(8)]
    try:
        for child in children:
            child.expect("up")
        for child in children:
            child.say()
        writers = {child.hear() for child in children}
        assert len(writers) == 1
        assert (data_dir / "run/writer.log").read_text().count(" open ") == 1
        for child in children:
            child.say()
            assert child.end() == 0
            assert child.errors == ""
    finally:
        for child in children:
            child.__exit__()
    assert sorted(payloads(data_dir)) == list(range(8))


def test_two_writers_are_one_too_many(data_dir: Path) -> None:
    """Case 18."""
    with Messenger(data_dir) as m:
        pid = writer_pid(data_dir)
        arguments = next(
            text for text in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0\0") if "keyop.writer" in text
        ).split("\0")
        arguments = [text for text in arguments if text and not text.startswith("turn_fd=")]
        second = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30,
                                env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert second.returncode == 69
        assert "another writer runs here" in second.stderr
        assert str(pid) in second.stderr
        m.publish("c", 1, payload_type=TYPE)
        assert writer_pid(data_dir) == pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for others")
def test_root_works_in_somebody_elses_directory_as_that_one(data_dir: Path) -> None:
    """A volume that was prepared with chown, then a command run by root: everything is the owner's afterwards."""
    data_dir.mkdir()
    os.chown(data_dir, 12345, 12346)
    for path in data_dir.parents:
        if path.owner() == "root" and path.stat().st_mode & 0o111 != 0o111:
            path.chmod(0o711)
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        m.publish("c", 1, payload_type=TYPE)
        m.publish("c", "x" * 300_000, payload_type=TYPE)
        assert inbox.take(2) == [1, "x" * 300_000]
        assert Path(f"/proc/{writer_pid(data_dir)}").stat().st_uid == 12345
        for name in objects_of(data_dir):
            assert (SHM / name).stat().st_uid == 12345
    assert {
        (path.stat().st_uid, path.stat().st_gid) for path in data_dir.rglob("*") if path.parent.name != "spill"
    } == {(12345, 12346)}


@pytest.mark.parametrize("name", ["writer.lock", "spawn.lock", "writer.log", ".id.new"])
def test_nothing_is_opened_through_a_link_in_run(data_dir: Path, tmp_path: Path, name: str) -> None:
    """Root would write to, or give away, whatever the directory's owner points it at."""
    target = tmp_path / "target"
    target.write_text("precious")
    (data_dir / "run").mkdir(parents=True)
    (data_dir / "run" / name).symlink_to(target)
    with pytest.raises((OSError, DataDirectoryError, WriterUnavailable)):
        Messenger(data_dir)
    assert target.read_text() == "precious"
    (data_dir / "run" / name).unlink()
    assert not (data_dir / "run/id").exists() or objects_of(data_dir) == []


@pytest.mark.parametrize("text", ["", "x\n", "0123", "\0" * 33, "é" * 32])
def test_an_id_that_a_power_cut_left_half_written_is_made_anew(data_dir: Path, text: str) -> None:
    (data_dir / "run").mkdir(parents=True)
    (data_dir / "run/id").write_text(text)
    identities = []
    threads = [
        threading.Thread(target=lambda: identities.append(DirectoryIdentity(data_dir / "run").key)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(identities)) == 1
    assert len(identities) == 8
    with Messenger(data_dir) as m:
        m.publish("c", 1, payload_type=TYPE)


def test_a_flipped_bit_in_the_id_changes_no_name(tmp_path: Path) -> None:
    """With other names the next writer would not find the rings of those who live, or were killed."""
    (tmp_path / "run").mkdir()
    key = DirectoryIdentity(tmp_path / "run").key
    path = tmp_path / "run" / "id"
    sound = path.read_bytes()
    for bit in range(len(sound) * 8):
        damaged = bytearray(sound)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(damaged)
        assert DirectoryIdentity(tmp_path / "run").key == key
    path.write_bytes(sound[: len(sound) // 2 + 3])
    assert DirectoryIdentity(tmp_path / "run").key == key


def test_a_lock_without_a_board_is_another_ipc_namespace(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_link, "_BOARD_PATIENCE_S", 0.1)
    (data_dir / "run").mkdir(parents=True)
    held = lease.acquire(data_dir / "run" / lease.WRITER_LOCK)
    assert held is not None
    with pytest.raises(WriterUnavailable, match=r"its board is not in this /dev/shm.*docker run --ipc"):
        Messenger(data_dir)
    held.release()
    assert objects_of(data_dir) == []
    assert not list((data_dir / "run").glob("port-*"))


def test_nobody_starts_a_writer_beside_a_supervisor(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment_module, "START_TIMEOUT_S", 0.2)
    (data_dir / "run").mkdir(parents=True)
    held = lease.acquire(data_dir / "run" / lease.SUPERVISED)
    assert held is not None
    with pytest.raises(WriterUnavailable, match="a supervisor should start it, is it running"):
        Messenger(data_dir)
    assert writer_pid(data_dir) is None
    held.release()
    assert objects_of(data_dir) == []


def test_a_writer_that_cannot_start_says_why(data_dir: Path) -> None:
    with Messenger(data_dir):
        pass
    end_writer(data_dir)
    (data_dir / "journal/a.journal").unlink()
    (data_dir / "journal/a.journal").mkdir()
    with pytest.raises(WriterUnavailable, match=r"could not be started \(exit code \d+\); see .*writer\.log\n"):
        Messenger(data_dir)
    (data_dir / "journal/a.journal").rmdir()


def test_a_data_directory_that_is_removed_under_a_process(data_dir: Path) -> None:
    m = Messenger(data_dir)
    m.publish("c", 1, payload_type=TYPE)
    names, pid = objects_of(data_dir), writer_pid(data_dir)
    data_dir.rename(data_dir.with_name("away"))
    try:
        eventually(lambda: writer_pid(data_dir.with_name("away")) != pid)
        with pytest.raises(DataDirectoryError, match="removed or moved away"):
            m.publish("c", 2, payload_type=TYPE, timeout=DEADLINE_S)
        m.close(timeout=0.1)
    finally:
        for name in names:
            (SHM / name).unlink(missing_ok=True)
    with Messenger(data_dir.with_name("away")) as m:
        m.publish("c", 3, payload_type=TYPE)
    assert payloads(data_dir.with_name("away"))[0] == 1
    leave(data_dir.with_name("away"))


# ---- ports that are not what they should be


@needs_shm
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(
            lambda port, path: os.chown(path, 12345, 12345),
            "belongs to user 12345",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
        (lambda port, path: path.chmod(0o666), "refused"),
        (lambda port, path: port.words.__setitem__(layout.VERSION, 77), "version 77"),
        (lambda port, path: port.words.__setitem__(layout.DIRECTORY_LO, 0), "another data directory"),
    ],
    ids=["owner", "mode", "layout", "directory"],
)
def test_a_port_that_is_not_ours_is_refused_and_the_others_go_on(data_dir: Path, spoil: Any, why: str) -> None:
    with Messenger(data_dir) as m:
        identity = DirectoryIdentity(data_dir / "run")
        draft = lease.create_port_lease(data_dir / "run", "0badbad0")
        strange = Port.create(identity, "0badbad0")
        spoil(strange, SHM / identity.port("0badbad0")[1:])
        lease.publish_port_lease(draft, "0badbad0")
        log = data_dir / "run/writer.log"
        eventually(lambda: "port_refused" in log.read_text())
        assert why in log.read_text()
        m.publish("c", 1, payload_type=TYPE)
        draft.release()
        port.remove(identity, "0badbad0")
        strange.close()
        eventually(lambda: not draft.path.exists())
        assert log.read_text().count("port_refused") == 1


@needs_shm
def test_a_ring_of_garbage_is_closed_and_the_others_go_on(data_dir: Path) -> None:
    """Its own process gets an error instead of waiting for ever."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.publish("c", 1, payload_type=TYPE)
        attachment = m._attachment
        with attachment._lock:
            attachment._words[layout.HEAD] = attachment._words[layout.HEAD] + 64 & layout.MASK
            attachment._ring._head = attachment._words[layout.HEAD]
        with pytest.raises(SharedMemoryError, match="closed this process's ring"):
            m.publish("c", 2, payload_type=TYPE, timeout=DEADLINE_S)
        other.publish("c", 3, payload_type=TYPE)
        assert "ring_closed" in (data_dir / "run/writer.log").read_text()
    assert payloads(data_dir) == [1, 3]


def malformed() -> list[bytes]:
    """Transactions that no release of ours sends."""
    nothing, spilled = entry.TRANSACTION.pack(0), entry.TRANSACTION.pack(entry.SPILL)
    short_opening = entry.encode(entry.OPEN, b"c", b"i", data=b"xyz")
    no_slot = entry.encode(entry.OPEN, b"c", b"i", data=entry.OPENING.pack(0, 1, 9999))
    bad_id = entry.encode(entry.OPEN, b"c", b"/.", data=entry.OPENING.pack(0, 1, 3))
    return [
        b"x",
        nothing,
        spilled,
        nothing + b"x" * 10,
        b"\xff" * 30,
        spilled + b"y" * 9,
        spilled + entry.SPILL_RECORD.pack(5, 5) + b"../../../etc/passwd",
        spilled + entry.SPILL_RECORD.pack(5, 5) + b"\xff\x00",
        nothing + short_opening,
        nothing + no_slot,
        nothing + bad_id,
        nothing + entry.encode(entry.CURSOR, b"c", b"i", data=b"xyz"),
        nothing + entry.encode(entry.APPEND, b"\xff\xff", data=b"ab\n"),
        nothing + entry.encode(entry.APPEND, b"c", data=b"no end"),
        nothing + entry.encode(entry.APPEND, b"../x", data=b"ab\n"),
        nothing + entry.encode(entry.FORGET, b"c", b"../../x"),
        nothing + entry.encode(entry.FORGET, b"\xff", b"\xff"),
        nothing + entry.encode(entry.SET, b"..", b"x", value=2**64 - 1),
        nothing + entry.encode(entry.SET, b"c", b"x", value=2**64 - 1),
        nothing + entry.encode(entry.CLOSE, b"never", b"opened"),
        nothing + entry.encode(99, b"c", b"x"),
    ]


@pytest.mark.parametrize("transaction", malformed(), ids=range(len(malformed())))
def test_no_transaction_ends_the_writer(transaction: bytes, data_dir: Path) -> None:
    """The next writer would find it in the ring again, and the next."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.publish("ok", 0, payload_type=TYPE)
        pid = writer_pid(data_dir)
        with contextlib.suppress(PublishError, SubscribeError):
            m._attachment.transact(transaction, "c", time.monotonic() + DEADLINE_S)
        m.publish("ok", 1, payload_type=TYPE, timeout=DEADLINE_S)
        other.publish("ok", 2, payload_type=TYPE, timeout=DEADLINE_S)
        assert writer_pid(data_dir) == pid
        assert m.stats().writer_state == "open"
    assert payloads(data_dir, "ok") == [0, 1, 2]
    assert {path.name for path in data_dir.iterdir()} == {"audit", "channels", "journal", "run", "subscribers"}


def test_a_board_of_another_layout_is_not_used(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_link, "_BOARD_PATIENCE_S", 0.1)
    with Messenger(data_dir) as m:
        board = Board.open(m._attachment.identity)
        assert board is not None
        board.words[layout.VERSION] = 99
        with pytest.raises(WriterUnavailable):
            Messenger(data_dir)
        board.words[layout.VERSION] = layout.VERSION_NUMBER
        m.publish("c", 1, payload_type=TYPE)


# ---- ends


@pytest.mark.parametrize("how", ["end", "exit", "error"])
def test_a_process_that_ends_without_close_has_published_what_it_published(data_dir: Path, how: str) -> None:
    """Daemon threads do not hold up the interpreter, and what stands in the ring is committed before it ends."""
    source = """
        m = Messenger(settings_for(data_dir, storage={"sync_interval_ms": 1000}))
        inbox = []
        m.subscribe("c", "s", inbox.append)
        for number in range(2000):
            m.publish("c", number, payload_type="t")
        if sys.argv[2] == "exit":
            sys.exit(3)
        if sys.argv[2] == "error":
            raise LookupError
    """
    with Child(source, data_dir, how) as child:
        assert child.end() == {"end": 0, "exit": 3, "error": 1}[how]
        assert len(payloads(data_dir)) == 2000
        assert child.errors.count("\n") == (0 if how != "error" else child.errors.count("\n"))
    assert payloads(data_dir) == list(range(2000))


def test_a_killed_periodic_publisher_loses_nothing_that_publish_returned(data_dir: Path) -> None:
    source = """
        m = Messenger(settings_for(data_dir, storage={"sync_interval_ms": 1000}))
        number = 0
        while True:
            m.publish("c", number, payload_type="t")
            say(number)
            number += 1
    """
    with Messenger(settings_for(data_dir, storage={"sync_interval_ms": 1000})) as m:
        with Child(source, data_dir) as child:
            for number in range(500):
                child.expect(str(number))
            child.process.kill()
            last = int([str(number), *child.rest()][-1])
        inbox = Inbox()
        m.subscribe("c", "s", inbox, start="earliest")
        assert inbox.take(last + 1) == list(range(last + 1))
    assert payloads(data_dir) in (list(range(last + 1)), list(range(last + 2)))


def test_ctrl_c_in_a_publish_that_waits(data_dir: Path) -> None:
    """It is raised, nobody else's wait is harmed, and the messenger goes on."""
    source = """
        m = Messenger(data_dir)
        m.publish("c", 0, payload_type="t")
        pid = int((data_dir / "run/writer.lock").read_text().split()[1])
        os.kill(pid, signal.SIGSTOP)
        while any(open(f"/proc/{pid}/task/{task}/stat").read().rpartition(")")[2].split()[0] != "T"
                  for task in os.listdir(f"/proc/{pid}/task")):
            time.sleep(0.001)
        others = [threading.Thread(target=m.publish, args=("c", n), kwargs={"payload_type": "t"}) for n in (1, 2, 3)]
        for other in others[: int(sys.argv[2])]:
            other.start()
            while len(m._attachment.commit_gate._waiters) + m._attachment.commit_gate._lead <= others.index(other):
                time.sleep(0.001)
        def tell():
            while len(m._attachment.commit_gate._waiters) + m._attachment.commit_gate._lead <= int(sys.argv[2]):
                time.sleep(0.001)
            say("waiting")
        threading.Thread(target=tell).start()
        try:
            m.publish("c", "interrupted", payload_type="t")
        except KeyboardInterrupt:
            say("interrupted")
        for other in others[int(sys.argv[2]) :]:
            other.start()
        os.kill(pid, signal.SIGCONT)
        for other in others:
            other.join()
        m.publish("c", 4, payload_type="t", timeout=15)
        m.close()
        say("closed")
    """
    for before in (0, 1, 3):
        with Child(source, data_dir / str(before), before) as child:
            child.expect("waiting")
            child.signal(signal.SIGINT)
            child.expect("interrupted")
            child.expect("closed")
            assert child.end() == 0
        found = payloads(data_dir / str(before))
        assert found[0] == 0
        assert found[-1] == 4
        assert sorted(map(str, found)) == ["0", "1", "2", "3", "4", "interrupted"]
        end_writer(data_dir / str(before))
        assert objects_of(data_dir / str(before)) == []


def test_a_program_in_development_mode_is_warned_of_nothing(data_dir: Path) -> None:
    """pytest with warnings as errors is one."""
    source = """
        for number in range(3):
            with Messenger(data_dir) as m:
                m.subscribe("c", "s", lambda message: None)
                m.publish("c", number, payload_type="t")
            pid = int((data_dir / "run/writer.lock").read_text().split()[1])
            os.kill(pid, signal.SIGTERM)
            while (data_dir / "journal").exists() and os.path.exists(f"/proc/{pid}") and number < 2:
                with Messenger(data_dir) as m:  # starting the next reaps the last
                    pass
        say("done")
    """
    with Child(source, data_dir, env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}) as child:
        child.expect("done")
        assert child.end() == 0
        assert child.errors == ""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is closed has to be let go of at once, without the help of the collector of circles."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_hundred_attachments_leave_nothing(data_dir: Path) -> None:
    with Messenger(data_dir) as first:
        first.publish("c", 0, payload_type=TYPE)

        def cycle() -> None:
            with Messenger(data_dir) as m:
                m.subscribe("c", f"s{os.urandom(2).hex()}", lambda message: None)
                m.publish("c", 1, payload_type=TYPE)

        def mappings() -> int:
            return sum(1 for line in Path("/proc/self/maps").read_text().splitlines() if "keyop-" in line)

        for _ in range(5):
            cycle()
        writer = writer_pid(data_dir)
        eventually(lambda: len(objects_of(data_dir)) == 5)
        before = (len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{writer}/fd")))
        mapped = mappings()
        for _ in range(100):
            cycle()
        eventually(lambda: len(objects_of(data_dir)) == 5)
        assert len(list((data_dir / "run").glob("*port-*"))) == 1
        after = (len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{writer}/fd")))
        assert after <= (before[0] + 2, before[1] + 2)
        assert mappings() <= mapped + 30
        writers = sum(1 for line in Path(f"/proc/{writer}/maps").read_text().splitlines() if "keyop-" in line)
        assert writers < 30
        eventually(lambda: threading.active_count() < 20)


def test_a_disk_without_room_for_a_lease_is_said_as_an_error_of_the_library(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lease, "create_port_lease", full)
    with pytest.raises(DataDirectoryError, match="No space left"):
        Messenger(data_dir)


def test_a_disk_without_room_for_a_log_may_have_it_for_a_writer(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = spawn.open_given

    def full(path: Path, flags: int) -> int:
        if path.name == "writer.log":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return given(path, flags)

    monkeypatch.setattr(spawn, "open_given", full)
    with Messenger(data_dir) as m:
        m.publish("c", 1, payload_type=TYPE)
    assert not (data_dir / "run/writer.log").exists()


def test_a_lock_that_cannot_be_looked_at_starts_no_second_writer(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptors, for example. What was published meanwhile is committed by the writer that is there."""
    with Messenger(data_dir) as m:
        pid = writer_pid(data_dir)
        held = lease.is_held
        looks = 0

        def fail(_path: Path) -> bool:
            nonlocal looks
            looks += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(lease, "is_held", fail)
        eventually(lambda: looks > 1)
        m.publish("c", 1, payload_type=TYPE)
        monkeypatch.setattr(lease, "is_held", held)
        assert writer_pid(data_dir) == pid
