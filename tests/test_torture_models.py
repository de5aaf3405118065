"""The model of the commit path: with all its rules nothing is lost, and without any one of them something is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.models.commit_path import Control, control, play, trace
from torturing.models.commit_path.disk import Directory, File
from torturing.models.commit_path.line import Line, read_lines
from torturing.models.commit_path.modes import MODES, STRICT
from torturing.models.commit_path.rules import ALL, Rules
from torturing.models.commit_path.world import World

RUNS = 25


@pytest.mark.parametrize("name", MODES)
def test_with_all_rules_no_promise_is_broken(name: str) -> None:
    for seed in range(RUNS):
        assert play(seed, MODES[name]).violations == [], f"seed {seed}"


@pytest.mark.parametrize("name", ALL)
def test_every_rule_is_needed(name: str) -> None:
    found = control(name, range(Control(name).runs_needed))
    assert found.bad, f"in {found.runs} runs nothing went wrong without: {found.sentence}"


def test_everything_follows_from_the_seed() -> None:
    mode = MODES["periodic together"]
    first, second = (trace(3, mode) for _ in range(2))
    assert first == second
    assert first != trace(4, mode)


def test_a_trace_says_in_words_what_went_wrong() -> None:
    found = control("salts", range(50))
    seed = min(found.bad)
    lines = trace(seed, found.mode, found.rules, found.aims)
    kind, text = found.bad[seed][0]
    assert f"!!! {kind}: {text}" in lines
    assert any(line.startswith("frame 1 is written") for line in lines)
    assert any(line.startswith("*** ") for line in lines)


def test_the_runs_do_what_they_are_for() -> None:
    """Else the model would hold because nothing happens in it."""
    counts = sum((play(seed, STRICT["compaction"]).counts for seed in range(40)), play(0, STRICT["plain"]).counts)
    assert counts["acknowledged"] > 1000
    assert counts["power cuts"] > 50
    assert counts["segments removed"] > 5


# ---- the disk


def world(seed: int = 0) -> World:
    return World(seed, STRICT["plain"], Rules())


def test_a_power_cut_takes_what_was_not_synced_and_any_part_of_it() -> None:
    seen = set()
    for seed in range(200):
        chance = world(seed).chance
        file = File([("a", 0)])
        file.write(1, [("b", 0), ("c", 0)])
        file.lose_power(chance)
        assert file.cells[0] == ("a", 0)
        seen.add(tuple(file.cells[1:]))
    assert seen == {
        (),
        (None,),
        (("b", 0),),
        (None, None),
        (("b", 0), None),
        (None, ("c", 0)),
        (("b", 0), ("c", 0)),
    }


def test_a_sync_reaches_what_was_written_before_it_began() -> None:
    file = File()
    file.write(0, [("a", 0)])
    mark = file.written
    file.write(1, [("b", 0)])
    file.sync(mark)
    lengths = set()
    for seed in range(40):
        again = File()
        again.write(0, [("a", 0)])
        mark = again.written
        again.write(1, [("b", 0)])
        again.sync(mark)
        again.lose_power(world(seed).chance)
        assert again.cells[0] == ("a", 0)
        lengths.add(len(again))
    assert lengths == {1, 2}


def test_after_a_failed_sync_the_next_one_says_that_all_is_well() -> None:
    lost = 0
    for seed in range(40):
        chance = world(seed).chance
        file = File()
        file.write(0, [("a", 0)])
        file.fail_sync(chance, forget=False)
        assert file.cells == [("a", 0)]
        file.sync()
        file.lose_power(chance)
        lost += file.cells != [("a", 0)]
    assert 5 < lost < 35


def test_a_file_is_gone_with_its_name() -> None:
    outcomes = set()
    for seed in range(60):
        directory = Directory()
        file = File()
        file.write(0, [("a", 0)])
        file.sync()
        directory.put("name", file)
        directory.lose_power(world(seed).chance)
        outcomes.add("name" in directory.names)
    assert outcomes == {True, False}


def test_of_a_spoilt_line_the_whole_one_at_its_end_counts() -> None:
    torn, whole = Line("p", 1, "in", 3), Line("p", 2, "in", 2)
    found = list(read_lines([*torn.cells[:2], None, *whole.cells, *torn.cells]))
    assert [(item.begin, item.at, item.behind, item.line, item.spoilt) for item in found] == [
        (0, 3, 5, whole, True),
        (5, 5, 8, torn, False),
    ]


# ---- the command


def test_the_command_prints_a_table_and_tells_a_run(tmp_path: Path) -> None:
    def torture(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torturing", "models", "--seed", "0", "--keep", str(tmp_path), *words]
        return subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, timeout=60)

    table = torture("commit-path", "--runs", "2")
    assert table.returncode == 0, table.stdout + table.stderr
    assert "strict plain: 0 of 2 bad with all rules" in table.stdout
    assert "without salts: " in table.stdout
    assert all(f"without {name}: " in table.stdout for name in ALL)
    told = torture("commit-path", "--without", "salts", "--trace", "0")
    assert "frame 1 is written" in told.stdout
    assert list(tmp_path.iterdir()) == []
