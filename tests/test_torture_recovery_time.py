"""How long a recovery takes: the measurement works. Its figures are for a quiet machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing import recovery_time


def test_every_shape_and_state_is_measured(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    recovery_time.add_arguments(parser)
    words = ["--segments", "20", "--runs", "1", "--aim", "20000"]
    report = recovery_time.run(parser.parse_args(words, argparse.Namespace(dir=tmp_path)))
    assert report.violations == []
    assert report.runs == len(recovery_time.SHAPES) * len(recovery_time.STATES)
    assert list(tmp_path.iterdir()) == []
