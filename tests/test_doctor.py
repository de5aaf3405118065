"""``keyop doctor``, as processes on this machine, and on what `unshare` and `mount` make of it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child import DEADLINE_S, ROOT, Child, eventually, kill_writer
from conftest import objects_of

from keyop import Messenger
from keyop.doctor import login, sync
from keyop.doctor.examination import CHECKS, examine
from keyop.doctor.leftovers import groups_in
from keyop.doctor.mounts import mount_of
from keyop.doctor.subject import Subject
from keyop.ipc.names import DirectoryIdentity

GO_DATADIR = Path(__file__).parent / "fixtures" / "go-datadir"


class Report:
    """What one run said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        self.code = done.returncode
        said = json.loads(done.stdout)
        self.worst = said["worst"]
        self.findings: list[dict[str, Any]] = said["findings"]

    def of(self, check: str, level: str = "") -> dict[str, Any]:
        """The one finding of a check (at a level)."""
        found = [one for one in self.findings if one["check"] == check and level in ("", one["level"])]
        assert len(found) == 1, (check, level, self.findings)
        return found[0]

    def levels(self, check: str) -> list[str]:
        return [one["level"] for one in self.findings if one["check"] == check]


def doctor(*arguments: object, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Report:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYOP_")}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "keyop.cli", "doctor", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
        check=False,
    )
    assert done.stdout, done.stderr
    return Report(done)


@pytest.fixture
def mounted() -> Callable[..., tuple[str, ...]]:
    """A prefix that runs a command where these mounts are made, and seen by nobody else."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mount namespaces need root and the command unshare")

    def prefix(*commands: str) -> tuple[str, ...]:
        return ("unshare", "-m", "sh", "-ec", "; ".join((*commands, 'exec "$@"')), "sh")

    if subprocess.run([*prefix("mount -t tmpfs tmpfs /mnt"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts nothing")
    return prefix


# ---- as a whole


def test_a_machine_without_a_data_directory() -> None:
    report = doctor()
    assert "machine alone" in report.of("configuration", "note")["text"]
    assert {one["check"] for one in report.findings}.isdisjoint({"directory", "sync", "space", "certificates", "hubs"})
    assert report.code == (report.worst == "problem")
    versions = report.of("versions", "ok")["values"]
    assert versions["kernel"] == os.uname().release
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    report = doctor("-d", tmp_path / "a" / "data")
    assert list(tmp_path.iterdir()) == []
    assert report.of("directory")["text"].endswith("may make it")
    assert report.of("file-system")["values"]["mount_point"] == str(mount_point_of(tmp_path))
    measured = report.of("sync")["values"]
    assert 0 < measured["p50_us"] <= measured["p99_us"]
    assert measured["strict_per_s"] == pytest.approx(1e6 / measured["p50_us"], rel=0.01, abs=1)
    free = report.of("space", "ok" if os.statvfs(tmp_path).f_bavail > 2**19 else "warning")["values"]["free_bytes"]
    assert free == pytest.approx(os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.2)
    assert report.of("descriptors")["values"]["hard"] in (resource.getrlimit(resource.RLIMIT_NOFILE)[1], None)


def mount_point_of(path: Path) -> Path:
    while not path.is_mount():
        path = path.parent
    return path


def test_it_takes_part_in_nothing(tmp_path: Path) -> None:
    shutil.copytree(GO_DATADIR, tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    doctor("-d", tmp_path / "data")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    config = tmp_path / "keyop.yaml"
    config.write_text("storage:\n  data_dir: ./data\n  max_file: 3\n")
    report = doctor("-c", config)
    assert f"{config}:3: storage.max_file is not a key" in report.of("configuration", "problem")["text"]
    assert report.code == 1
    assert report.of("versions", "ok")  # the machine is looked at all the same


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("keyop.doctor.descriptors.resource.getrlimit", broken)
    found = list(examine(Subject(), ["descriptors", "versions"]))
    assert (found[0].level, found[0].check) == ("warning", "descriptors")
    assert "RuntimeError: the disk is on fire" in found[0].text
    assert found[1].check == "versions"


def test_for_people_and_for_scripts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(GO_DATADIR, data)
    ahead = time.time() + 3600
    os.utime(data / "channels" / "alerts" / "00000000000000000000.jsonl", (ahead, ahead))
    command = [sys.executable, "-m", "keyop.cli", "doctor", "-d", str(data)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    calm = subprocess.run(command, capture_output=True, text=True, env=env, timeout=DEADLINE_S, check=False)
    assert "warning  clock" in calm.stdout
    assert "60 minutes later than that" in calm.stdout
    assert "-> the clock was wrong" in calm.stdout
    assert calm.stdout.splitlines()[-1].startswith("0 problems, ")
    assert calm.returncode == 0
    assert doctor("-d", data, "--fail-on", "warning").code == 1


def test_every_check_has_a_name_of_its_own() -> None:
    for name in CHECKS:
        assert (ROOT / "keyop" / "doctor" / f"{name}.py").is_file()


# ---- the disk


def test_the_scratch_file_has_no_name(tmp_path: Path) -> None:
    source = f"""
        from keyop.doctor import sync
        say("begins")
        sync.measure(Path({str(tmp_path)!r}), 10_000_000 // 512)
        """
    with Child(source, tmp_path) as child:
        child.expect("begins")
        links = Path(f"/proc/{child.pid}/fd")

        def open_there() -> bool:
            return any(os.path.dirname(os.readlink(link)) == str(tmp_path) for link in links.iterdir())

        eventually(open_there)
        assert list(tmp_path.iterdir()) == []
        child.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert sync.measure(tmp_path, 3).count == 3
    assert list(tmp_path.iterdir()) == []


def test_what_a_time_means() -> None:
    def level(p50_us: float, p99_us: float = 0, *, strict: bool = True, plates: bool = False) -> str:
        measured = sync.Measured(200, p50_us, max(p50_us, p99_us))
        return sync._judge(measured, is_strict=strict, plates=plates).level

    assert level(150) == "ok"
    assert level(3) == "warning"  # nothing answers so quickly
    assert level(150, plates=True) == "warning"  # less than a turn
    assert level(6_000, plates=True) == "ok"
    assert level(40_000) == "warning"
    assert level(40_000, strict=False) == "ok"
    assert level(5_000, 900_000) == "note"
    assert [sync.format_us(us) for us in (0.84, 142, 3_210, 1_200_000)] == ["0.8 µs", "142 µs", "3.2 ms", "1.2 s"]


def test_memory_is_no_disk(mounted: Callable[..., tuple[str, ...]]) -> None:
    report = doctor("-d", "/mnt/data", prefix=mounted("mount -t tmpfs -o size=64m tmpfs /mnt"))
    assert "gone when the machine restarts" in report.of("file-system", "warning")["text"]
    assert report.of("sync", "warning")["values"]["p50_us"] < 10
    assert report.of("space", "warning")["values"]["free_bytes"] == 64 * 2**20


def test_a_full_disk(mounted: Callable[..., tuple[str, ...]]) -> None:
    fill = "mount -t tmpfs -o size=1m,nr_inodes=20 tmpfs /mnt", "head -c 1M /dev/zero > /mnt/x 2>/dev/null || true"
    report = doctor("-d", "/mnt/data", prefix=mounted(*fill))
    assert report.of("space", "problem")["remedy"].startswith("make room")
    assert "inodes" in report.of("space", "warning")["text"]
    assert "No space left" in report.of("sync", "problem")["text"]
    assert report.code == 1


def test_a_disk_that_may_not_be_written(mounted: Callable[..., tuple[str, ...]], tmp_path: Path) -> None:
    prefix = mounted(f"mount --bind {tmp_path} {tmp_path}", f"mount -o remount,bind,ro {tmp_path}")
    report = doctor("-d", tmp_path / "data", prefix=prefix)
    assert "read-only" in report.of("file-system", "problem")["text"]


def test_a_disk_without_barriers(mounted: Callable[..., tuple[str, ...]], tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs the command mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True, timeout=DEADLINE_S)
    prefix = mounted(f"mount -o loop,nobarrier {image} /mnt")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=DEADLINE_S).returncode:
        pytest.skip("this machine mounts no images")
    assert "without barriers" in doctor("-d", "/mnt/data", prefix=prefix).of("file-system", "warning")["text"]


def test_names_of_mounts_with_blanks(mounted: Callable[..., tuple[str, ...]], tmp_path: Path) -> None:
    place = tmp_path / "a b\\c"
    place.mkdir()
    report = doctor("-d", place / "data", prefix=mounted(f"mount -t tmpfs tmpfs '{place}'"))
    assert report.of("file-system")["values"] == {"kind": "tmpfs", "mount_point": str(place)}


def test_a_path_of_this_machine() -> None:
    mount = mount_of(Path("/proc/self"))
    assert mount is not None
    assert (mount.kind, mount.point) == ("proc", Path("/proc"))


def test_somebody_elses_directory(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and the command setpriv")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    report = doctor("-d", tmp_path / "data", prefix=nobody)
    assert "may not write there" in report.of("directory", "problem")["text"]
    assert report.code == 1


# ---- shared memory


def test_a_small_shared_memory(mounted: Callable[..., tuple[str, ...]]) -> None:
    report = doctor(prefix=mounted("mount -t tmpfs -o size=400k tmpfs /dev/shm"))
    assert report.of("shared-memory", "problem")["values"]["processes"] == 0
    assert "--shm-size" in report.of("shared-memory", "problem")["remedy"]
    report = doctor(prefix=mounted("mount -t tmpfs -o size=4m tmpfs /dev/shm"))
    assert 2 <= report.of("shared-memory", "warning")["values"]["processes"] < 13
    report = doctor(prefix=mounted("mount -t tmpfs -o ro tmpfs /dev/shm"))
    assert "read-only" in report.of("shared-memory", "problem")["text"]


def test_as_many_processes_as_it_says(mounted: Callable[..., tuple[str, ...]], data_dir: Path) -> None:
    """The number is right: so many messengers attach, and one more does not."""
    small = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
    room = doctor("-d", data_dir, prefix=mounted(small)).of("shared-memory", "warning")["values"]["processes"]
    count = """
        import sys
        from keyop import Messenger, SharedMemoryError
        messengers = []
        try:
            while True:
                messengers.append(Messenger(sys.argv[1]))
                messengers[-1].publish("c", 1, payload_type="t")
        except SharedMemoryError:
            print(len(messengers))
        for one in messengers:
            one.close()
        import os, signal, pathlib
        from child import eventually, writer_pid
        os.kill(writer_pid(pathlib.Path(sys.argv[1])), signal.SIGTERM)
        eventually(lambda: writer_pid(pathlib.Path(sys.argv[1])) is None)
        """
    lines = [line[8:] for line in count.splitlines()]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [*mounted(small), sys.executable, "-c", "\n".join(lines), str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stdout.split() == [str(room)], done.stderr


def test_a_writer_that_cannot_be_seen(mounted: Callable[..., tuple[str, ...]], data_dir: Path) -> None:
    with Messenger(data_dir) as m:
        m.publish("c", 1, payload_type="t")
        assert doctor("-d", data_dir).of("directory")["level"] == "ok"
        elsewhere = doctor("-d", data_dir, prefix=mounted("mount -t tmpfs tmpfs /dev/shm"))
    assert "has another /dev/shm" in elsewhere.of("directory", "problem")["text"]


def test_what_the_dead_have_left(data_dir: Path) -> None:
    source = """
        m = Messenger(data_dir)
        m.publish("c", 1, payload_type="t")
        say("published")
        hear()
        """
    with Child(source, data_dir) as child:
        child.expect("published")
        kill_writer(data_dir)
        child.kill()
    key = DirectoryIdentity(data_dir / "run").key
    try:
        own = [one for one in doctor("-d", data_dir).findings if one["check"] == "leftovers"]
        assert "no writer has taken" in own[0]["text"]
        assert own[0]["values"] == {"dead_processes": 1}
        assert key not in str(own)  # it is no rubbish
        other = doctor("-d", data_dir.parent / "other").of("leftovers", "note")
        assert key in other["values"]["keys"]
        assert not groups_in(Path("/dev/shm"))[key].lives
    finally:
        with Messenger(data_dir) as m:  # which takes what they hold
            m.publish("c", 2, payload_type="t")

            def is_whole() -> bool:
                """Between two looks the writer may have removed what the dead process had."""
                group = groups_in(Path("/dev/shm"))[key]
                return group.lives and sorted(group.names) == objects_of(data_dir)

            eventually(is_whole)


# ---- the machine


def test_few_descriptors(tmp_path: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("needs the command prlimit")
    report = doctor(prefix=("prlimit", "--nofile=200:200"))
    assert report.of("descriptors", "problem")["values"]["hard"] == 200
    for number in range(150):
        (tmp_path / "channels" / f"c{number}").mkdir(parents=True)
    report = doctor("-d", tmp_path, prefix=("prlimit", "--nofile=260:260"))
    assert "fewer than there are channels" in report.of("descriptors", "warning")["text"]


def test_the_clock_of_a_host_without_a_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from keyop.doctor import clock

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(1970, 1, 1, 0, 5, tzinfo=UTC)

    monkeypatch.setattr(clock, "datetime", Then)
    (found,) = clock.check(Subject())
    assert (found.level, found.text[:28]) == ("problem", "it is 1970-01-01T00:05:00Z, ")


def test_the_kernel_tells_whether_the_clock_is_kept_in_step() -> None:
    told = doctor().of("clock")["values"]["synchronised"]
    assert told in (True, False)
    if shutil.which("adjtimex"):
        done = subprocess.run(["adjtimex", "-p"], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
        status = int(done.stdout.partition("status:")[2].split()[0])
        assert told == (not status & 0x40)


def test_what_logind_removes(tmp_path: Path) -> None:
    def judge(uid: int) -> str:
        return login.judge(uid, tmp_path).level

    me = 54_321  # nobody's
    assert judge(me) == "warning"  # on unless told
    assert judge(999) == "ok"
    write(tmp_path / "etc/login.defs", "# SYS_UID_MAX 5\nSYS_UID_MAX\t499\n")
    assert judge(999) == "warning"
    write(tmp_path / "etc/systemd/logind.conf", "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n")
    assert judge(me) == "ok"
    write(tmp_path / "usr/lib/systemd/logind.conf.d/50-distro.conf", "[Login]\nRemoveIPC = Yes\n")
    assert judge(me) == "warning"  # a drop-in goes before the main file, wherever that is
    write(tmp_path / "etc/systemd/logind.conf.d/50-distro.conf", "")
    assert judge(me) == "ok"  # and one in /etc hides that of the same name
    write(tmp_path / "run/systemd/logind.conf.d/60.conf", "[Login]\nRemoveIPC=1\n")
    assert judge(me) == "warning"
    write(tmp_path / "var/lib/systemd/linger/user 54321", "")
    assert judge(me) == "ok"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
