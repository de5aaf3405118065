"""Disks that fail: the layer itself, and a sample of its scenarios."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.faults import scenarios
from torturing.faults.flawed_writer import FLAWS
from torturing.faults.mount import FaultyDisk, missing
from torturing.faults.rules import CHANGES, GROWS, Rule, Rulebook
from torturing.faults.spans import Spans
from torturing.faults.stage import Stage
from torturing.workload import Plan

needs_fuse = pytest.mark.skipif(missing() != "", reason=missing() or "-")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with FaultyDisk(tmp_path_factory.mktemp("faults")) as disk:
        yield disk


@pytest.fixture
def place(disk: FaultyDisk, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the mount whose name is on the device."""
    path = disk.mount / request.node.name
    path.mkdir()
    sync(disk.mount)
    yield path
    disk.control.heal()


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def after_a_cut(disk: FaultyDisk, place: Path) -> dict[str, bytes]:
    """What a power cut now would leave of a directory."""
    image = disk.place / f"image-{random.randbytes(4).hex()}"
    disk.control.cut(image)
    return {path.name: path.read_bytes() for path in (image / place.name).iterdir()}


def test_spans_are_sets_of_positions() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        spans, wanted = Spans(), set[int]()
        for _ in range(20):
            start, end = sorted(chance.choices(range(30), k=2))
            match chance.randrange(3):
                case 0:
                    spans.add(start, end)
                    wanted.update(range(start, end))
                case 1:
                    spans.remove(start, end)
                    wanted.difference_update(range(start, end))
                case 2:
                    spans.cut(end)
                    wanted = {position for position in wanted if position < end}
            assert [at for low, high in spans for at in range(low, high)] == sorted(wanted)
            assert spans.end == max(wanted, default=-1) + 1


def test_a_rule_counts() -> None:
    rules = Rulebook()
    rules.replace([Rule(("sync",), errno="EIO", every_other=True)])
    assert [rules.judge(("sync",), "a").errno for _ in range(4)] == [errno.EIO, 0, errno.EIO, 0]
    rules.replace([Rule(("write",), ("a/*",), errno="EIO", skip=1, times=2), Rule(("write",), errno="ENOSPC")])
    found = [rules.judge(("write", "extend"), path).errno for path in ["a/b/c", "b"] + ["a/b"] * 3]
    assert found == [errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.EIO, errno.ENOSPC]
    assert rules.hits() == [2, 3]
    assert rules.judge(("read",), "a/b").errno == 0
    with pytest.raises(ValueError, match="no such"):
        Rule(("writes",))


@needs_fuse
def test_only_what_was_synced_outlives_a_cut(disk: FaultyDisk, place: Path) -> None:
    (place / "named").write_bytes(b"")
    sync(place)
    with (place / "named").open("r+b", buffering=0) as file:
        file.write(b"synced")
        os.fsync(file.fileno())
        file.write(b", not synced")
    (place / "nameless").write_bytes(b"synced")
    sync(place / "nameless")
    assert after_a_cut(disk, place) == {"named": b"synced"}
    (place / "nameless").rename(place / "renamed")
    (place / "named").unlink()
    assert after_a_cut(disk, place) == {"named": b"synced"}
    sync(place)
    assert after_a_cut(disk, place) == {"renamed": b"synced"}
    os.truncate(place / "renamed", 2)
    assert after_a_cut(disk, place) == {"renamed": b"synced"}
    sync(place / "renamed")
    assert after_a_cut(disk, place) == {"renamed": b"sy"}


@needs_fuse
def test_a_failed_sync_drops_what_it_should_have_written(disk: FaultyDisk, place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"old!")
    sync(path)
    sync(place)
    with path.open("r+b", buffering=0) as file:
        file.write(b"new")
        disk.control.fail(Rule(("sync",), (f"{place.name}/f",), errno="EIO", times=1, drop=True))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())  # as if all were well
        assert path.read_bytes() == b"new!"
        assert after_a_cut(disk, place) == {"f": b"old!"}
        file.seek(0)
        file.write(b"ne")
        os.fdatasync(file.fileno())
        assert after_a_cut(disk, place) == {"f": b"ned!"}
        assert disk.control.evict() == 1
        assert path.read_bytes() == b"ned!"


@needs_fuse
def test_operations_fail_on_command(disk: FaultyDisk, place: Path) -> None:
    with (place / "f").open("w+b", buffering=0) as file:
        disk.control.fail(Rule(("write",), short=True, times=1))
        assert [file.write(b"12345678"), file.write(b"12345678")] == [4, 8]
        disk.control.fail(Rule(GROWS, errno="ENOSPC"))
        assert os.pwrite(file.fileno(), b"over", 0) == 4
        for action in (
            lambda: file.write(b"x"),
            lambda: (place / "g").touch(),
            lambda: (place / "d").mkdir(),
            lambda: (place / "f").rename(place / "g"),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                action()
        assert disk.control.hits() == [4]
        disk.control.fail(Rule(CHANGES, errno="EROFS"))
        for action in (
            lambda: os.pwrite(file.fileno(), b"x", 0),
            lambda: (place / "f").open("r+b"),
            lambda: (place / "f").unlink(),
            lambda: os.fsync(file.fileno()),
            lambda: sync(place),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
                action()
        assert (place / "f").read_bytes()[:4] == b"over"
        disk.control.heal()
        assert file.write(b"x") == 1


@needs_fuse
def test_a_slow_sync_holds_up_nobody_else_and_ends_when_healed(disk: FaultyDisk, place: Path) -> None:
    (place / "slow").touch()
    disk.control.fail(Rule(("sync",), ("*/slow",), wait_s=60))
    syncing = threading.Thread(target=sync, args=(place / "slow",))
    syncing.start()
    assert disk.control.wait_for_hits(1, DEADLINE_S)
    (place / "quick").write_bytes(b"x")
    sync(place / "quick")
    disk.control.heal()
    syncing.join(DEADLINE_S)
    assert not syncing.is_alive()


@needs_fuse
def test_locks_and_removed_open_files_are_as_on_any_disk(disk: FaultyDisk, place: Path) -> None:
    with (place / "lock").open("w+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert subprocess.run(["flock", "-n", str(place / "lock"), "true"], check=False).returncode == 1
        (place / "lock").unlink()
        assert list(place.iterdir()) == []
        assert os.fstat(file.fileno()).st_size == 0


@needs_fuse
def test_a_layer_whose_starter_was_killed_unmounts(tmp_path: Path) -> None:
    source = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "scripts")!r})
from torturing.faults.mount import FaultyDisk
disk = FaultyDisk(Path({str(tmp_path)!r}))
print("mounted" if os.path.ismount(disk.mount) else "not mounted", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", source], check=False, capture_output=True, timeout=DEADLINE_S)
    assert ended.stdout == b"mounted\n", ended.stderr
    wait_until_unmounted(tmp_path / "mount")


def wait_until_unmounted(mount: Path) -> None:
    """The kernel says when the table of mounts has changed."""
    import select

    with open("/proc/self/mounts") as table:
        poller = select.poll()
        poller.register(table, select.POLLERR | select.POLLPRI)
        while str(mount) in table.read():
            assert poller.poll(DEADLINE_S * 1000), f"{mount} is still mounted"
            table.seek(0)


# ---- scenarios


def arguments(place: Path, **given: object) -> argparse.Namespace:
    told: dict[str, object] = {"seed": 7, "keep": place / "kept", "dir": place, "only": "", "lanes": 2}
    return argparse.Namespace(**{**told, "faults": 0, "runs": 0, **given})


@needs_fuse
def test_a_sample_of_the_scenarios_breaks_no_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "_CONTROLS", ())
    report = scenarios.run(arguments(tmp_path, faults=4, runs=1))
    assert [str(found) for found in report.violations] == []
    assert report.runs == 5
    assert report.counts["acknowledged"] > 100
    assert report.counts["power cuts"] > 5
    assert not mounts_below(tmp_path)


@needs_fuse
def test_writers_that_take_a_failed_sync_lightly_are_found_out(tmp_path: Path) -> None:
    report = scenarios.run(arguments(tmp_path, only="control"))
    assert [str(found) for found in report.violations] == []
    assert sorted(note.split()[1].rstrip(":") for note in report.notes) == sorted(FLAWS)


@needs_fuse
def test_a_broken_promise_is_said_and_kept_with_what_led_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(stage: Stage) -> None:
        stage.start_writer()
        stage.start_crew()
        stage.fail(Rule(("read",), errno="EIO", times=1))
        stage.heal()
        stage.say("lost", "the test says so")

    monkeypatch.setattr(scenarios, "_of_catalogue", lambda: iter([scenarios.Scenario("a lie", Plan(), lie)]))
    report = scenarios.run(arguments(tmp_path, faults=1, only="lie"))
    (found,) = report.violations
    assert report.exit_code == 1
    assert found.text == "a lie: the test says so"
    kept = Path(found.kept)
    assert (kept / "backing/data/channels").is_dir()
    assert "errno='EIO'" in (kept / "told").read_text()
    assert (kept / "ledger").stat().st_size
    assert not mounts_below(tmp_path)


def mounts_below(place: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(place) in line]
