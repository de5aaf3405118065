"""Another program's habits: a sample with real processes, and that the checker finds what there is to find."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing import habits
from torturing.findings import Report
from torturing.visits.checking import check
from torturing.visits.go_program import Written
from torturing.visits.habits import HABITS
from torturing.visits.life import STATES, Story, live
from torturing.visits.shift import Ledger

from keyop.storage.segments import segment_name


def run(tmp_path: Path, *words: str) -> Report:
    parser = argparse.ArgumentParser()
    habits.add_arguments(parser)
    place = argparse.Namespace(seed=4, dir=tmp_path, keep=tmp_path / "kept")
    return habits.run(parser.parse_args(words, place))


@pytest.mark.parametrize("state", STATES)
def test_several_habits_in_each_state(tmp_path: Path, state: str) -> None:
    report = run(tmp_path, "--runs", "2", "--visits", "1", "--habit", "everything", "--state", state)
    assert report.violations == []
    assert report.counts["acknowledged"]
    assert report.counts["by the other program"]


def test_each_habit_after_a_power_cut(tmp_path: Path) -> None:
    report = run(tmp_path, "--runs", str(len(HABITS)), "--visits", "1", "--state", "cut")
    assert report.violations == []
    assert report.runs == len(HABITS)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger, Story]:
    place = tmp_path_factory.mktemp("lived")
    ledger = Ledger(place / "ledger")
    return place / "data", ledger, live(place / "data", ledger, "1", "append", "rest", 1)


def test_the_checker_finds_what_is_wrong(lived: tuple[Path, Ledger, Story]) -> None:
    data_dir, ledger, story = lived
    assert check(data_dir, ledger, story) == []
    story.written.append(Written("orders", 77))
    assert [violation.kind for violation in check(data_dir, ledger, story)] == ["lost"]
    story.written.pop()
    path = data_dir / "channels" / "orders" / segment_name(0)
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]))
    assert "lost" in {violation.kind for violation in check(data_dir, ledger, story)}
    path.write_bytes(b"\n".join([lines[0], *lines]))
    assert "doubled" in {violation.kind for violation in check(data_dir, ledger, story)}
    path.write_bytes(whole)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"handled", "by": "plain"', b'"handled", "by": "other"'))
    assert "unhandled" in {violation.kind for violation in check(data_dir, ledger, story)}
