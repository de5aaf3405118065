"""``keyop service``: what the unit says, where it is written, and what systemd itself makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually

from keyop import Messenger, follow
from keyop.errors import ConfigError, DataDirectoryError
from keyop.inspection import survey
from keyop.service import escaping
from keyop.service.unit import Unit
from keyop.storage.directory import DataDirectory

_SYSTEMD = Path("/lib/systemd/systemd")
# What the unit waits for, of a machine that is not booted: empty.
_TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network", "time-sync", "umount")


class Keyop:
    """Runs ``keyop service`` in a directory, with a home of its own."""

    def __init__(self, here: Path) -> None:
        self.here = here
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEYOP_", "XDG_"))}
        self.env = {**clean, "PYTHONPATH": str(ROOT), "HOME": str(here / "home")}

    def __call__(
        self, *arguments: str, code: int = 0, prefix: tuple[str, ...] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "keyop.cli", "service", *arguments],
            cwd=self.here,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @property
    def unit(self) -> Path:
        return self.here / "home" / ".config" / "systemd" / "user" / "keyop.service"


@pytest.fixture
def keyop(tmp_path: Path) -> Keyop:
    (tmp_path / "data").mkdir()
    (tmp_path / "keyop.yaml").write_text("storage:\n  data_dir: data\n")
    return Keyop(tmp_path)


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A directory that other users may enter; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="keyop-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


# ---- what it says


def test_the_unit_of_a_system(keyop: Keyop) -> None:
    said = lines(keyop("show", "--system").stdout)
    assert said["ExecStart"].endswith(f" up --config {keyop.here / 'keyop.yaml'}")
    assert os.access(said["ExecStart"].split()[0], os.X_OK)
    assert (said["Type"], said["Restart"], said["KillMode"]) == ("notify", "always", "mixed")
    assert said["WorkingDirectory"] == str(keyop.here)
    assert said["RequiresMountsFor"] == str(keyop.here / "data")
    assert said["ReadWritePaths"].split() == [str(keyop.here / "data"), "/tmp", "/var/tmp"]
    assert (said["ProtectSystem"], said["NoNewPrivileges"]) == ("strict", "yes")
    assert said["PrivateTmp"] == "no"  # its data lies there
    assert said["WantedBy"] == "multi-user.target"
    # What would hide /dev/shm from the others, or empty it.
    assert said["RemoveIPC"] == "no"
    assert {"PrivateIPC", "TemporaryFileSystem", "PrivateDevices", "DynamicUser"}.isdisjoint(said)


def test_the_unit_of_a_user(keyop: Keyop) -> None:
    said = lines(keyop("show", "--user").stdout)
    assert said["WantedBy"] == "default.target"
    assert "ProtectSystem" not in said  # needs a namespace
    assert said["NoNewPrivileges"] == "yes"
    assert "--run-as is for a system unit" in keyop("show", "--user", "--run-as", "daemon", code=2).stderr


def test_who_runs_it(keyop: Keyop) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives directories away")
    assert "User" not in lines(keyop("show").stdout)
    os.chown(keyop.here / "data", 1, 1)
    said = lines(keyop("show").stdout)
    assert (said["User"], said["CapabilityBoundingSet"]) == ("daemon", "")
    assert lines(keyop("show", "--run-as", "nobody").stdout)["User"] == "nobody"
    assert "no such user" in keyop("show", "--run-as", "nobodyatall", code=2).stderr
    os.chown(keyop.here / "data", 54_321, 54_321)
    assert "--run-as" in keyop("show", code=2).stderr


def test_a_port_that_not_everybody_may_listen_at(keyop: Keyop) -> None:
    for name in ("crt", "key", "ca"):
        (keyop.here / name).write_text("")
    tls = {"cert": "crt", "key": "key", "ca": "ca"}
    for address, wanted in ((":443", "CAP_NET_BIND_SERVICE"), (":7740", "")):
        sections = {"storage": {"data_dir": "data"}, "hub": {"enabled": True, "listen_addr": address}, "tls": tls}
        (keyop.here / "keyop.yaml").write_text(json.dumps(sections))
        said = lines(keyop("show", "--system", "--run-as", "daemon").stdout)
        assert (said["CapabilityBoundingSet"], said.get("AmbientCapabilities", "")) == (wanted, wanted)


def test_what_the_service_will_not_have(keyop: Keyop) -> None:
    done = keyop("show", "--system", KEYOP_STORAGE__DATA_DIR="/elsewhere")
    assert "KEYOP_STORAGE__DATA_DIR is set here" in done.stderr
    assert lines(done.stdout)["RequiresMountsFor"] == str(keyop.here / "data")


def test_how_words_are_written() -> None:
    assert escaping.word("/srv/keyop") == "/srv/keyop"
    assert escaping.word("/srv/a b") == '"/srv/a b"'
    assert escaping.word('/srv/%i"\\') == '"/srv/%%i\\"\\\\"'
    assert escaping.word("/srv/$HOME") == "/srv/$HOME"
    assert escaping.argument("/srv/$HOME") == "/srv/$$HOME"
    assert escaping.line("/srv/a b/%i") == "/srv/a b/%%i"
    for bad in ("/srv/a\nExecStartPre=/bin/false", "/srv/\x1b"):
        with pytest.raises(ConfigError, match="cannot be written"):
            escaping.word(bad)
    with pytest.raises(ConfigError, match="backslash"):
        escaping.line("/srv/a\\")


def test_what_bad_arguments_get(keyop: Keyop) -> None:
    assert "a unit's name" in keyop("show", "--name", "../x", code=2).stderr
    assert "no-such.yaml" in keyop("show", "-c", "no-such.yaml", code=2).stderr
    (keyop.here / "keyop.yaml").write_text("storage:\n  data_dir: data\n  max_file: 3\n")
    assert "storage.max_files" in keyop("show", code=2).stderr


# ---- where it is written


def test_install_and_uninstall(keyop: Keyop) -> None:
    done = keyop("install", "--user")
    assert keyop.unit.read_text() == keyop("show", "--user").stdout
    assert stat.S_IMODE(keyop.unit.stat().st_mode) == 0o644
    assert "systemctl --user enable --now keyop" in done.stdout
    assert "loginctl enable-linger" in done.stdout
    assert "there already" in keyop("install", "--user").stdout
    keyop.unit.with_name("keyop.service.d").mkdir()
    done = keyop("uninstall", "--user")
    assert "drop-ins, which stay" in done.stdout
    assert not keyop.unit.exists()
    assert (keyop.here / "data").is_dir()
    assert "no such unit" in keyop("uninstall", "--user", code=1).stderr


def test_a_unit_that_differs_is_left_alone(keyop: Keyop) -> None:
    keyop("install", "--user")
    changed = keyop.unit.read_text().replace("RestartSec=5", "RestartSec=1")
    keyop.unit.write_text(changed)
    refused = keyop("install", "--user", code=1)
    assert "--force replaces it" in refused.stderr
    assert "-RestartSec=1" in refused.stderr
    assert "+RestartSec=5" in refused.stderr
    assert keyop.unit.read_text() == changed
    keyop("install", "--user", "--force")
    assert "RestartSec=5" in keyop.unit.read_text()
    assert sorted(path.name for path in keyop.unit.parent.iterdir()) == ["keyop.service"]


def test_a_unit_of_somebody_else(keyop: Keyop) -> None:
    keyop.unit.parent.mkdir(parents=True)
    keyop.unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert "was not written by keyop" in keyop("uninstall", "--user", code=1).stderr
    assert keyop.unit.exists()
    keyop("uninstall", "--user", "--force")
    assert not keyop.unit.exists()
    keyop.unit.symlink_to("/dev/null")
    assert "masked" in keyop("install", "--user", code=1).stderr


def test_a_directory_that_the_service_could_not_make(keyop: Keyop) -> None:
    (keyop.here / "data").rmdir()
    assert f"install -d {keyop.here / 'data'}" in keyop("install", "--user", code=1).stderr
    assert not keyop.unit.exists()


def test_where_it_may_not_be_written(for_all: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and the command setpriv")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    (for_all / "data").mkdir()
    (for_all / "keyop.yaml").write_text("storage:\n  data_dir: data\n")
    refused = Keyop(for_all)("install", "--system", code=1, prefix=nobody)
    assert "/etc/systemd/system" in refused.stderr


# ---- what systemd makes of it


@pytest.fixture
def odd(tmp_path: Path) -> Keyop:
    """Everything lies below a path that means something to systemd."""
    here = tmp_path / "a b%h $HOME"
    (here / "da'ta").mkdir(parents=True)
    (here / "keyop.yaml").write_text('storage:\n  data_dir: "da\'ta"\n')
    return Keyop(here)


@pytest.mark.parametrize("whose", ["--system", "--user"])
def test_systemd_finds_nothing_wrong(odd: Keyop, tmp_path: Path, whose: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "odd.service"
    (tmp_path / "run").mkdir(mode=0o700)

    def verify(text: str) -> subprocess.CompletedProcess[str]:
        unit.write_text(text)
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
        command = ["systemd-analyze", "verify", whose, str(unit)]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    text = odd("show", whose).stdout
    good = verify(text)
    assert (good.returncode, good.stderr) == (0, "")
    assert verify(text.replace("ExecStart=/", "ExecStart=/nowhere/")).returncode != 0  # it does look


class Systemd:
    """A systemd of its own, in namespaces, that starts one unit and knows no others. Only where no other one runs."""

    def __init__(self, directory: Path, unit: str) -> None:
        if os.geteuid() != 0 or not _SYSTEMD.exists() or Path("/run/systemd/system").exists():
            pytest.skip("needs root on a machine that systemd has not booted, and systemd")
        directory.mkdir()
        for target in _TARGETS:
            (directory / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        (directory / "keyop.service").write_text(unit)
        (directory / "go.target").write_text("[Unit]\nDefaultDependencies=no\nRequires=keyop.service\n")
        commands = (
            "mount -t proc proc /proc",
            "mount --bind /proc/sys /proc/sys",
            "mount -o remount,bind,ro /proc/sys",
            "mount -t tmpfs tmpfs /run",
            "mkdir -p /run/systemd/system",
            f"exec {_SYSTEMD} --system --unit=go.target",
        )
        self.log = directory / "log"
        env = {**os.environ, "container": "lxc", "SYSTEMD_UNIT_PATH": str(directory), "SYSTEMD_LOG_TARGET": "console"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "-p", "-u", "-C", "--fork", "--kill-child=SIGKILL", "sh", "-ec", "; ".join(commands)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
            )

    def close(self) -> None:
        self.process.kill()  # the first process of the namespace goes with it, and with that all others
        self.process.wait(DEADLINE_S)
        eventually(self._is_gone)

    def _is_gone(self) -> bool:
        for place in ("systemd", "unified", ""):
            for name in ("system.slice/keyop.service", "system.slice", "init.scope"):
                with contextlib.suppress(OSError):
                    Path("/sys/fs/cgroup", place, name).rmdir()
        left = ("systemd/system.slice", "systemd/init.scope", "system.slice/keyop.service")
        return not any(Path("/sys/fs/cgroup", name).exists() for name in left)


_STAND_IN = """\
#!{python}
import json, os, signal, socket, sys

def look(path):
    try:
        open(path, "x").close()
        os.unlink(path)
        return True
    except OSError:
        return False

address = os.environ["NOTIFY_SOCKET"]
report = {{
    "arguments": sys.argv[1:],
    "directory": os.getcwd(),
    "writable": list(filter(look, ("data/x", "/dev/shm/keyop-test-{pid}", "/etc/keyop-test", "keyop-test"))),
    "watchdog": os.environ.get("WATCHDOG_USEC"),
    "uid": os.getuid(),
}}
with open("data/.report", "w") as file:
    json.dump(report, file)
os.rename("data/.report", "data/report")
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
    to.sendto(b"READY=1", "\\0" + address[1:] if address[0] == "@" else address)
signal.pause()
"""


@pytest.fixture
def started() -> Iterator[list[Systemd]]:
    started: list[Systemd] = []
    yield started
    for one in started:
        one.close()


def test_systemd_runs_it_shut_off_and_not_from_shared_memory(
    for_all: Path, tmp_path: Path, started: list[Systemd]
) -> None:
    here = for_all / "a b%h $HOME"
    (here / "data").mkdir(parents=True)
    os.chown(here / "data", 1, 1)
    program = here / "stand in"
    program.write_text(_STAND_IN.format(python=Path("/usr/bin/python3"), pid=os.getpid()))
    program.chmod(0o755)
    unit = Unit(
        name="keyop",
        is_system=True,
        program=(str(program), "with $HOME; and %i"),
        config=here / "keyop.yaml",
        data_dir=here / "data",
        working_directory=here,
        run_as="daemon",
    )
    systemd = Systemd(tmp_path / "units", unit.text())
    started.append(systemd)
    report = here / "data" / "report"
    try:
        eventually(report.exists)
    finally:
        assert report.exists(), systemd.log.read_text()
    said = json.loads(report.read_text())
    assert said["arguments"] == ["with $HOME; and %i", "up", "--config", str(here / "keyop.yaml")]
    assert said["directory"] == str(here)
    assert said["writable"] == ["data/x", f"/dev/shm/keyop-test-{os.getpid()}"]
    assert (said["watchdog"], said["uid"]) == ("60000000", 1)


def test_keyop_up_below_systemd(tmp_path: Path, data_dir: Path, started: list[Systemd]) -> None:
    """The real one: who is outside meets the writer that runs inside, and a message passes."""
    data_dir.mkdir()
    keyop = Keyop(tmp_path)
    config = tmp_path / "keyop.yaml"
    config.write_text(f"storage:\n  data_dir: {data_dir}\n")
    systemd = Systemd(tmp_path / "units", keyop("show", "--system").stdout)
    started.append(systemd)

    def is_open() -> bool:
        try:
            return survey.status(DataDirectory(data_dir)).state == "open"
        except DataDirectoryError:
            return False  # there is nothing yet

    try:
        eventually(is_open)
    finally:
        assert is_open(), systemd.log.read_text()
    with Messenger(data_dir) as m:
        m.publish("c", "through the wall", payload_type="t")
    assert [message.payload for message in follow(data_dir, "c", "earliest", wait=False)] == ["through the wall"]
    stop = [sys.executable, "-m", "keyop.cli", "stop", "-c", str(config)]
    done = subprocess.run(stop, env=keyop.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done  # five seconds until systemd starts it again, in which it goes itself
    assert not survey.status(DataDirectory(data_dir)).running
