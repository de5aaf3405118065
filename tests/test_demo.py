"""The demonstration, without the making of its virtual environment: what it says, its exit code, and what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from child import DEADLINE_S, ROOT, writer_pid


def start(*arguments: object, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demonstration", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}", "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def sums(output: str) -> dict[str, list[int]]:
    """``published`` and the workers, with the numbers in their lines."""
    found = re.findall(r"^(published|display|siren): (.*)$", output, re.MULTILINE)
    return {name: [int(number) for number in re.findall(r"\d+", rest)] for name, rest in found}


def test_every_message_has_its_outcome_and_nothing_stays(data_dir: Path, tmp_path: Path) -> None:
    demo = start("--seconds", 4, "--data-dir", data_dir, temporary=tmp_path)
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, output + errors
    assert errors == ""
    assert "siren      readings/siren: attempt 1 failed: ConnectionError: the siren does not answer" in output
    assert "is a dead letter: ConnectionError: the siren does not answer" in output
    assert "siren      handled at attempt 2" in output
    ((published,), display, siren) = sums(output).values()
    assert published >= 10
    assert display == [published, 0, 0, 0]
    handled, dead, lost, twice = siren
    assert (handled + dead, lost, twice) == (published, 0, 0)
    assert dead >= 1
    assert re.search(r"^\$ keyop channels\n.*\n?.*^readings ", output, re.MULTILINE | re.DOTALL)
    assert re.search(r"^readings +siren ", output, re.MULTILINE)
    assert writer_pid(data_dir) is None  # that nothing is left in shared memory, the fixture sees


def test_ctrl_c_ends_it_with_the_sums(tmp_path: Path) -> None:
    demo = start("--seconds", 600, temporary=tmp_path)
    assert demo.stdout is not None
    lines = []
    while not (lines and " publisher  #" in lines[-1]):
        lines.append(demo.stdout.readline())
        assert lines[-1], f"it ended: {lines}"
    os.killpg(demo.pid, signal.SIGINT)  # what a terminal does: everybody in the group is told
    output, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, ""), output
    assert "Every message was handled or is a dead letter." in output
    assert list(tmp_path.iterdir()) == []


def test_its_children_end_with_it(tmp_path: Path) -> None:
    demo = start("--seconds", 600, temporary=tmp_path)
    assert demo.stdout is not None
    while " publisher  #" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.kill()
    # The pipe to its standard error is open in every one of them.
    assert demo.stderr is not None
    assert demo.stderr.read() == ""
    demo.wait(DEADLINE_S)
