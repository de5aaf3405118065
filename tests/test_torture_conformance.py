"""From the same crash states the model of the commit path and keyop recover the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing.models.commit_path.conformance import Conformance
from torturing.models.commit_path.modes import MODES

from keyop.storage.replay import ChannelReplay

RUNS = 6


@pytest.mark.parametrize("name", MODES)
def test_both_recover_the_same(name: str, tmp_path: Path) -> None:
    compared = 0
    for seed in range(RUNS):
        found = Conformance(seed, MODES[name], tmp_path)
        assert found.differences == [], f"seed {seed}"
        compared += found.compared
    assert compared > 3 * RUNS
    assert list(tmp_path.iterdir()) == []


def test_a_keyop_that_recovers_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChannelReplay, "_foreign_run", lambda *_: None)
    found = [Conformance(seed, MODES["strict foreign"], tmp_path).differences for seed in range(RUNS)]
    assert any(found)
