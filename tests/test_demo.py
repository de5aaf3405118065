"""The demonstration, without the making of its virtual environment: what it says, its exit code, and what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import DEADLINE_S, ROOT, eventually, writer_pid
from conftest import leave

from keyop.ipc import lease

HOSTS = ("host1", "host2")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for both hosts; that nothing of it is left in shared memory is seen afterwards."""
    place = tmp_path / "demo"
    yield place
    for host in HOSTS:
        leave(place / host)


def start(*arguments: object, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demonstration", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}", "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def wait_for(demo: subprocess.Popen[str], words: str) -> None:
    assert demo.stdout is not None
    lines = []
    while not (lines and words in lines[-1]):
        lines.append(demo.stdout.readline())
        assert lines[-1], f"it ended: {lines}"


def sums(output: str) -> dict[str, list[int]]:
    """What was published and by whom it was handled, with the numbers in their lines."""
    found = re.findall(r"^((?:readings|alerts) published|display|siren|alarm): (.*)$", output, re.MULTILINE)
    return {name: [int(number) for number in re.findall(r"\d+", rest)] for name, rest in found}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run of four seconds says, which has to end well and leave nothing."""
    temporary = tmp_path_factory.mktemp("demo")
    place = temporary / "place"
    demo = start("--seconds", 4, "--dir", place, temporary=temporary)
    output, errors = demo.communicate(timeout=90)
    assert demo.returncode == 0, output + errors
    assert [line for line in errors.splitlines() if not line.startswith("keyop: ")] == []
    for host, role in zip(HOSTS, ("hub", "client"), strict=True):
        assert not lease.is_held(place / host / "run" / f"{role}.lock")
        assert writer_pid(place / host) is None
        leave(place / host)
    return output


def test_every_message_has_its_outcome(told: str) -> None:
    assert "siren      readings/siren: attempt 1 failed: ConnectionError: the siren does not answer" in told
    assert "is a dead letter: ConnectionError: the siren does not answer" in told
    assert "siren      handled at attempt 2" in told
    ((published,), display, siren, (alerts,), alarm) = sums(told).values()
    assert published >= 10
    assert display == [published, 0, 0, 0]
    handled, dead, lost, twice = siren
    assert (handled + dead, lost, twice) == (published, 0, 0)
    assert dead >= 1
    assert alerts >= 1
    assert alarm == [alerts, 0, 0, 0]
    for command in ("channels -d host1", "subscribers -d host2"):
        assert re.search(rf"^\$ keyop {command}\n.*\n?.*^readings ", told, re.MULTILINE | re.DOTALL)
    assert re.search(r"^readings +fed-host2 ", told, re.MULTILINE)
    assert re.search(
        r"^\$ keyop audit -d host2 \| tail -n 6\n(.*\n){5}.*  peer_disconnected  host1 ", told, re.MULTILINE
    )


def test_what_is_published_while_the_cable_is_cut_arrives_behind_it(told: str) -> None:
    story = re.findall(
        r"(cable +cut|client .*disconnected from host1|cable +mended; waiting: \d+ readings, \d+ alert|"
        r"client .*connected to host1|alarm .*host2 has lost its connection|what has waited has arrived)",
        told,
    )
    cut, mended = story.index("cable      cut"), next(at for at, line in enumerate(story) if "mended" in line)
    assert story[:2] == [story[0], "cable      cut"]
    assert "connected to host1" in story[0]
    assert "disconnected from host1" in story[cut + 1]
    waited = [int(number) for number in re.findall(r"\d+", story[mended])]
    assert waited[0] >= 3
    assert waited[1] >= 1
    assert "connected to host1" in story[mended + 1]
    assert any("lost its connection" in line for line in story[mended:])
    assert "what has waited has arrived" in story
    assert re.search(r"^readings: (\d+) on host1, \1 on host2: the same messages in the same order", told, re.MULTILINE)
    assert re.search(r"^alerts: (\d+) on host2, \1 on host1: the same messages in the same order", told, re.MULTILINE)


def test_ctrl_c_ends_it_with_the_sums(tmp_path: Path) -> None:
    demo = start("--seconds", 600, temporary=tmp_path)
    wait_for(demo, " publisher  #")
    os.killpg(demo.pid, signal.SIGINT)  # what a terminal does: everybody in the group is told
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, output + errors
    assert "Every message was handled or is a dead letter." in output
    assert list(tmp_path.iterdir()) == []


def test_its_children_end_with_it(place: Path, tmp_path: Path) -> None:
    demo = start("--seconds", 600, "--dir", place, temporary=tmp_path)
    wait_for(demo, " publisher  #")
    demo.kill()
    # The pipe to its standard error is open in every one of them, but for hub and client.
    assert demo.stderr is not None
    demo.stderr.read()
    demo.wait(DEADLINE_S)
    for host, role in zip(HOSTS, ("hub", "client"), strict=True):
        lock = place / host / "run" / f"{role}.lock"
        eventually(lambda lock=lock: not lease.is_held(lock))  # type: ignore[misc]
