"""A small sample of ./scripts/torture kills, and its controls: writers with a flaw, which it has to find."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing import kills, steps
from torturing.findings import Report


def run(tmp_path: Path, *words: str, seed: int = 5) -> Report:
    parser = ArgumentParser()
    kills.add_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.seed, arguments.dir, arguments.keep = seed, tmp_path, tmp_path / "kept"
    return kills.run(arguments)


def test_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    report = run(tmp_path, "--kills", "120", "--each", "60")
    assert report.violations == []
    assert report.runs >= 120
    assert report.counts["acknowledged"] > 100
    assert report.recovered_ms
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flaw", ["forget rings", "leave rings", "greatest part", "forget marks"])
def test_a_flaw_is_found(tmp_path: Path, flaw: str) -> None:
    # It shows only where a kill meets a message under way.
    assert any(
        run(tmp_path, "--kills", "80", "--each", "40", "--flaw", flaw, seed=seed).exit_code == 0 for seed in range(6)
    )
    assert any(kept.name == "ledger" for kept in (tmp_path / "kept").rglob("*"))


def test_every_step_in_the_code_is_among_them() -> None:
    assert steps.steps_in_the_code() == {
        *steps.STEPS,
        *steps.RECOVERY_STEPS,
        *steps.FIRST_STEPS,
        *steps.DELETION_STEPS,
    }


def test_the_command_line_says_what_there_is() -> None:
    command = [sys.executable, "-m", "torturing"]
    environment = {"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"}
    overview = subprocess.run([*command, "--help"], capture_output=True, text=True, env=environment, check=True)
    assert all(
        attack in overview.stdout for attack in ("cuts", "faults", "kills", "flips", "habits", "models", "sample")
    )
    of_kills = subprocess.run(
        [*command, "kills", "--help"], capture_output=True, text=True, env=environment, check=True
    )
    assert "--kills" in of_kills.stdout
    unknown = subprocess.run([*command, "nonsense"], capture_output=True, text=True, env=environment, check=False)
    assert unknown.returncode == 2
