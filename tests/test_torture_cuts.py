"""The disk that remembers, its images, and a small sample of ./scripts/torture cuts with the control that must lose."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child import ROOT, eventually

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.powercut import points, system
from torturing.powercut.disk import ENTRY, FLUSH, Disk
from torturing.powercut.image import Contents, Images, Recording, Survival, Write
from torturing.powercut.mount import FILE_SYSTEMS, make_image, missing, mounted
from torturing.powercut.points import Step
from torturing.powercut.room import Overdue, in_a_room

REASON = missing("ext4")
needs_root = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SECTOR = 512


def recorded(path: Path, *entries: tuple[int, bytes] | None) -> Recording:
    """A log of these writes; None is a flush."""
    with (path / "log").open("wb") as log:
        for number, each in enumerate(entries):
            offset, data = each or (0, b"")
            log.write(ENTRY.pack(number, offset, FLUSH if each is None else len(data)) + data)
    return Recording(path / "log")


def sectors(letters: str) -> bytes:
    return b"".join(letter.encode() * SECTOR for letter in letters)


def letters(file: Path) -> str:
    data = file.read_bytes()
    return "".join(chr(data[at]) if data[at] else "." for at in range(0, len(data), SECTOR))


# ---- images


@pytest.fixture
def zeros(tmp_path: Path) -> Path:
    file = tmp_path / "first"
    file.write_bytes(bytes(16 * SECTOR))
    return file


def test_a_file_is_made_of_writes_of_any_length(tmp_path: Path, zeros: Path) -> None:
    dice = random.Random(3)
    contents = Contents(zeros)
    whole = bytearray(16 * SECTOR)
    for _ in range(50):
        begin = dice.randrange(16)
        data = dice.randbytes(dice.randrange(1, 17 - begin) * SECTOR)
        contents.write(begin * SECTOR, data)
        whole[begin * SECTOR : begin * SECTOR + len(data)] = data
    contents.save(tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == whole
    assert Contents(tmp_path / "image").size == len(whole)


def test_what_was_flushed_is_there_and_of_the_rest_what_survived(tmp_path: Path, zeros: Path) -> None:
    log = recorded(tmp_path, (0, sectors("ab")), None, (SECTOR, sectors("cde")), (0, sectors("f")), None, (0, b"g"))
    assert (len(log), log.flushes) == (6, [1, 4])
    assert [log.unflushed(point) for point in range(7)] == [0, 1, 0, 1, 2, 0, 1]
    images = Images(log, zeros)
    assert images.tail(1) == [Write(0, sectors("ab"))]
    assert images.tail(2) == []
    tail = images.tail(4)
    assert tail == [Write(SECTOR, sectors("cde")), Write(0, sectors("f"))]
    images.save([Write(2 * SECTOR, sectors("d"))], tmp_path / "image")
    assert letters(tmp_path / "image")[:5] == "abd.."


def test_each_rule_leaves_what_it_says(tmp_path: Path) -> None:
    writes = [Write(0, sectors("abcd")), Write(8 * SECTOR, sectors("ef"))]
    assert Survival("sectors", 0.0, 1).of(writes) == []
    assert Survival("sectors", 1.0, 1).of(writes) == writes
    some = Survival("sectors", 0.5, 1).of(writes)
    assert 0 < len(some) < 6
    assert some == Survival("sectors", 0.5, 1).of(writes)
    assert all(len(write.data) == SECTOR for write in some)
    assert len(Survival("all but one", 0.0, 7).of(writes)) == 5
    assert Survival("last", 0.0, 1).of(writes) == writes[1:]
    wholes = [Survival("writes", 0.5, seed).of(writes) for seed in range(20)]
    assert sorted(map(len, wholes))[::19] == [0, 2]
    assert all(set(whole) <= set(writes) for whole in wholes)
    assert Survival("all but one", 0.0, 1).of([]) == []
    # Superblocks are torn by no disk that a file system can live with.
    assert Survival("all but one", 0.0, 1).of([Write(0, sectors("abcd"))], [(0, 4 * SECTOR)]) == []


def test_cuts_come_near_every_kind_of_step_and_around_flushes(tmp_path: Path) -> None:
    entries = [None if number % 7 == 6 else (0, sectors("x")) for number in range(700)]
    log = recorded(tmp_path, *entries)
    steps = [Step("frame.written", mark) for mark in range(100, 700)] + [Step("journal.switched", 300)]
    cuts = points.choose(log, steps, 100, 200, random.Random(1))
    assert len(cuts) == 200
    assert [cut.point for cut in cuts] == sorted(cut.point for cut in cuts)
    assert all(100 <= cut.point <= 700 for cut in cuts)
    assert {cut.why for cut in cuts} == {"frame.written", "journal.switched", "flush", "anywhere"}
    assert all(abs(cut.point - 300) < 5 for cut in cuts if cut.why == "journal.switched")
    # Where nothing can be lost there is little to see.
    assert sum(not log.unflushed(cut.point) for cut in cuts) < 20
    assert cuts == points.choose(log, steps, 100, 200, random.Random(1))


# ---- the machine


@needs_root
def test_a_room_is_a_machine_that_has_just_started_and_leaves_nothing(tmp_path: Path) -> None:
    def work() -> tuple[int, list[str]]:
        system.mount("tmpfs", tmp_path, "tmpfs")
        (tmp_path / "here").touch()
        subprocess.Popen(["sleep", "1000"])
        return os.getpid(), os.listdir("/dev/shm")

    assert in_a_room(work, 20) == (1, [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Overdue):
        in_a_room(signal.pause, 0.1)
    with pytest.raises(system.RigError, match="ZeroDivisionError"):
        in_a_room(lambda: 1 // 0, 20)


@needs_root
def test_the_disk_logs_every_write_and_every_flush_in_their_order(tmp_path: Path) -> None:
    def work() -> list[tuple[int, int, int, bool]]:
        system.mount("tmpfs", tmp_path, "tmpfs")
        kind = FILE_SYSTEMS["ext4"]
        make_image(kind, tmp_path / "first")
        found = []
        with Disk(tmp_path / "disk", tmp_path / "first") as disk:
            with mounted(kind, disk.path, tmp_path / "fs", direct=True):
                fd = os.open(tmp_path / "fs" / "file", os.O_RDWR | os.O_CREAT)
                for number in range(20):
                    before = disk.length()
                    line = b"line %d" % number
                    os.pwrite(fd, line, 0)
                    os.fdatasync(fd)
                    log = Recording(disk.log)
                    after = disk.length()
                    writes = log.writes(before, after)
                    flushed = log.flushes[-1] >= before
                    found.append((after - before, len(log) - after, len(writes), flushed and has(writes, line)))
                os.close(fd)
            assert disk.length() == len(Recording(disk.log))
        return found

    def has(writes: list[Write], line: bytes) -> bool:
        return any(line in write.data for write in writes)

    for entries, unknown, writes, there in in_a_room(work, 60):
        assert there
        assert entries > writes > 0
        assert unknown == 0


# ---- the command


def torture(*words: str, place: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torturing", "cuts", *words, "--dir", str(place), "--keep", str(place / "kept")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}", "TMPDIR": str(place)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def loop_devices(place: Path) -> list[str]:
    """Those whose file lies below a place."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(backing.read_text().strip())
        except OSError:
            continue  # detached meanwhile
    return [file for file in found if file.startswith(str(place))]


def servers(place: Path) -> list[str]:
    """Processes that have the place among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if str(place) in line and "torturing.powercut.remembering" in line]


@needs_root
def test_nothing_is_lost_and_without_the_sync_it_is(tmp_path: Path) -> None:
    run = torture("--cuts", "16", "--seed", "3", "--json", str(tmp_path / "report"), place=tmp_path)
    said, errors = run.communicate(timeout=120)
    assert run.returncode == 0, said + errors
    (report,) = json.loads((tmp_path / "report").read_text())
    assert (report["runs"], report["violations"]) == (16, [])
    assert report["counts"]["acknowledged"] > 0
    assert report["recoveries"] == 16
    control = report["notes"][0]
    assert "append and fdatasync 0 of 10" in control
    assert "keyop with its sync taken out 0 of" not in control
    assert not loop_devices(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


@needs_root
def test_segments_that_no_checkpoint_syncs_are_missed(tmp_path: Path) -> None:
    run = torture("--cuts", "12", "--flaw", "segments", "--mode", "strict", "--seed", "3", place=tmp_path)
    said, errors = run.communicate(timeout=120)
    assert run.returncode == 0, said + errors
    assert "without the sync of segments" in said
    # What a flaw costs is kept, too: it can be looked at again, and shows again.
    kept = sorted((tmp_path / "kept").iterdir())
    again = torture("--again", str(kept[0]), place=tmp_path)
    said, errors = again.communicate(timeout=60)
    assert again.returncode == 1, said + errors


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_it_is_ended(tmp_path: Path, number: int) -> None:
    run = torture("--cuts", "500", "--no-control", "--seed", "3", place=tmp_path)
    try:
        eventually(lambda: servers(tmp_path) and loop_devices(tmp_path))
        run.send_signal(number)
        run.communicate(timeout=30)
    finally:
        run.kill()
        run.communicate()
    eventually(lambda: not servers(tmp_path) and not loop_devices(tmp_path))
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
