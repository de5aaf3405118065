"""An image kept for a second look, with all that one needs to check it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torturing.findings import keep
from torturing.powercut import system
from torturing.powercut.checkup import Before, Finding, check_image
from torturing.powercut.mount import FILE_SYSTEMS, FileSystem
from torturing.powercut.points import Cut
from torturing.workload import Plan

_KNOWN = "known.json"


def keep_image(
    kind: FileSystem,
    cut: Cut,
    before: Before,
    finding: Finding,
    checked: Path,
    save: Callable[[Path], None],
    into: Path,
) -> Path:
    """Keep the image as the cut left it, which ``save`` makes anew; where it is then.

    ``checked``: the directory in which it was checked, with the notes and the log of those who came after the cut.
    """
    name = f"cut-{kind.name}-{cut.point}-{cut.survival.seed}"
    fresh = checked / "again"
    save(fresh)
    keep(fresh, into, f"{name}/image")
    for file in ("ledger", "log"):
        if (checked / file).exists():
            keep(checked / file, into, f"{name}/{file}")
    known = {
        "fs": kind.name,
        "cut": asdict(cut),
        "plan": before.plan.as_dict(),
        "mark": before.mark,
        "cut_ns": before.cut_ns,
        "drained": before.drained,
        "violations": [str(found) for found in finding.violations],
        "notes": [note for note in before.notes if note["mark"] <= before.mark],
    }
    (into / name / _KNOWN).write_text(json.dumps(known))
    return into / name


def kind_of(kept: Path) -> FileSystem:
    """On which file system a kept image is. Raises `OSError`."""
    return FILE_SYSTEMS[json.loads((kept / _KNOWN).read_text())["fs"]]


def check_again(kept: Path, stage: Path) -> Finding:
    """Check a kept image, as it was left. Runs in a room."""
    system.mount("tmpfs", stage, "tmpfs")
    (stage / "image").touch()
    system.copy_sparse(kept / "image", stage / "image")
    known = json.loads((kept / _KNOWN).read_text())
    before = Before(known["notes"], Plan(**known["plan"]), known["mark"], known["cut_ns"], known["drained"])
    return check_image(kind_of(kept), stage / "image", before)
