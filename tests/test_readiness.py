"""A process that was told where says that it is ready: once, when it is, and to nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, Child
from federation import Net, to_hub

from keyop.readiness import READY, READY_VARIABLE, say_ready


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    net = Net(tmp_path)
    yield net
    net.close()


def _heard(command: list[str]) -> bytes:
    """What a process says until it closes the pipe; then it is ended, as by a service manager."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(writing,),
        env={**os.environ, "PYTHONPATH": str(ROOT), READY_VARIABLE: str(writing)},
    ) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            heard = pipe.read()
        process.terminate()
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors.decode()
    return heard


def test_a_writer_says_it_when_it_is_open(data_dir: Path) -> None:
    assert _heard([sys.executable, "-m", "keyop", "writer", "-d", str(data_dir)]) == READY


@pytest.mark.parametrize("role", ["hub", "client"])
def test_hub_and_client_say_it(net: Net, role: str) -> None:
    host = net.host("host1")
    if role == "hub":
        host.is_hub("host2")
    else:
        host.is_client(to_hub("127.0.0.1:1", publish=("up",)))
    assert _heard([sys.executable, "-m", "keyop", role, "-c", str(host.write_config())]) == READY


def test_who_cannot_start_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "keyop.writer", f"data_dir={tmp_path}/data"],
        stderr=subprocess.DEVNULL,
        pass_fds=(writing,),
        env={**os.environ, READY_VARIABLE: str(writing)},
    ) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b""
        assert process.wait(DEADLINE_S) == 73


def test_a_writer_started_on_demand_does_not_say_it_for_whoever_started_it(data_dir: Path) -> None:
    source = """
        import subprocess
        reading, writing = os.pipe()
        os.environ["KEYOP_READY_FD"] = str(writing)
        original = subprocess.Popen.__init__
        def passing(self, *arguments, **options):
            options["pass_fds"] = (*options.get("pass_fds", ()), writing)
            original(self, *arguments, **options)
        subprocess.Popen.__init__ = passing
        with Messenger(data_dir) as m:
            m.publish("a", 1, payload_type="t")
        os.set_blocking(reading, False)
        try:
            say(os.read(reading, 100))
        except BlockingIOError:
            say("nothing")
    """
    with Child(source, data_dir) as child:
        child.expect("nothing")
        assert child.end() == 0


def test_it_counts_once_and_only_for_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    monkeypatch.setenv(READY_VARIABLE, str(writing))
    say_ready()
    assert READY_VARIABLE not in os.environ
    say_ready()
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == READY
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setenv(READY_VARIABLE, str(file.fileno()))
        say_ready()
    assert (tmp_path / "file").read_bytes() == b""
    for nonsense in ("", "-1", "many", "999999"):
        monkeypatch.setenv(READY_VARIABLE, nonsense)
        say_ready()
