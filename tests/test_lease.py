"""Leases: a lock is a life. Probes disturb nobody, and a file that was unlinked is not a lease any more."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
from pathlib import Path

import pytest
from child import Child

from keyop.ipc import lease


def test_a_lease_is_held_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    assert not lease.is_held(path)
    held = lease.acquire(path)
    assert held is not None
    assert lease.is_held(path)
    assert lease.acquire(path, patience_s=0) is None
    held.note("pid 12\n")
    held.note("pid 3\n")
    assert path.read_text() == "pid 3\n"
    held.release()
    held.release()
    assert not lease.is_held(path)
    assert path.exists()


def test_a_lease_falls_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Child("from keyop.ipc import lease; held = lease.acquire(data_dir); say('held'); hear()", path) as child:
        child.expect("held")
        assert lease.is_held(path)
        assert lease.acquire(path, patience_s=0) is None
        child.kill()
        assert not lease.is_held(path)


def test_probes_do_not_take_each_other_for_life(tmp_path: Path) -> None:
    """Two who look at once would each see the other's lock."""
    path = tmp_path / "lock"
    path.touch()
    seen: list[bool] = []

    def look() -> None:
        seen.extend(lease.is_held(path) for _ in range(2000))

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert not any(seen)


def test_who_wants_a_lease_waits_for_the_probes_to_pass(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            lease.is_held(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            held = lease.acquire(path, patience_s=5)
            assert held is not None
            held.release()
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


def test_of_many_who_want_it_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    barrier = threading.Barrier(8)
    held: list[lease.Lease | None] = []

    def want() -> None:
        barrier.wait()
        held.append(lease.acquire(path, patience_s=0.05))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = [one for one in held if one is not None]
    assert len(got) == 1
    got[0].release()


def test_a_lock_on_a_file_that_lost_its_name_is_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and lock the writer may unlink the file: the lock is then on nothing that anybody finds."""
    path = tmp_path / "lock"
    real = lease._lock
    unlinked = []

    def lock_late(fd: int) -> bool:
        if not unlinked:
            path.unlink()
            unlinked.append(fd)
        return real(fd)

    monkeypatch.setattr(lease, "_lock", lock_late)
    held = lease.acquire(path)
    assert held is not None
    assert path.stat().st_nlink == 1
    monkeypatch.setattr(lease, "_lock", real)
    assert lease.is_held(path)
    held.release()


def test_a_ports_lease_is_locked_before_it_has_its_name(tmp_path: Path) -> None:
    held = lease.create_port_lease(tmp_path, "0123abcd")
    assert [path.name for path in tmp_path.iterdir()] == [".new-0123abcd"]
    assert lease.is_held(held.path)
    lease.publish_port_lease(held, "0123abcd")
    assert [path.name for path in tmp_path.iterdir()] == ["port-0123abcd"]
    assert held.path == tmp_path / "port-0123abcd"
    assert lease.is_held(held.path)
    held.release()
    assert not lease.is_held(held.path)


def test_a_lease_is_not_inherited_by_a_program(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    source = """
        import subprocess
        from keyop.ipc import lease
        held = lease.acquire(data_dir)
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
        say(sleeper.pid)
        hear()
    """
    with Child(source, path) as child:
        sleeper = int(child.hear())
        child.kill()
        try:
            assert not lease.is_held(path)
        finally:
            os.kill(sleeper, signal.SIGKILL)


def test_a_child_forked_during_a_probe_does_not_keep_the_lock(tmp_path: Path) -> None:
    """It inherits the descriptor: the lock would be held for as long as it lives, and no writer could start."""
    path = tmp_path / "lock"
    path.touch()
    source = """
        from keyop.ipc import lease
        real = lease._lock
        def lock(*arguments):
            locked = real(*arguments)
            if os.fork() == 0:
                time.sleep(60)
            return locked
        lease._lock = lock
        assert not lease.is_held(data_dir)
        held = lease.acquire(data_dir)
        held.release()
        lease._lock = real
        say("free", lease.acquire(data_dir, 0) is not None)
        os.killpg(0, signal.SIGKILL)
    """
    with Child("os.setpgid(0, 0)\n" + textwrap.dedent(source), path) as child:
        child.expect("free True")
        assert child.end() == -signal.SIGKILL


def test_a_lease_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        lease.acquire(tmp_path / "no" / "lock")
    with pytest.raises(IsADirectoryError):
        lease.acquire(tmp_path)
