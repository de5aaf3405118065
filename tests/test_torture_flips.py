"""Flipped bits: a sample of each kind, and that the checker finds what there is to find."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from child import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from torturing import flips
from torturing.flipping.bits import Bit, Region, every_bit, regions
from torturing.flipping.directories import Made, Room
from torturing.flipping.flaws import FLAWS
from torturing.flipping.judging import HARMLESS, LOST, REFUSED, REPEATED, judge, start
from torturing.flipping.pristine import Pristine
from torturing.flipping.starting import watched_disk

from keyop.storage.directory import DataDirectory

needs_shm = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm: shared memory cannot be listed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {made.name: made for made in Room(tmp_path_factory.mktemp("flips")).small()}


def cost(made: Made, chosen: Callable[[Region], bool], flaw: str = "") -> tuple[Counter[str], Counter[str]]:
    """Outcomes and kinds of violations of every fifth bit of some regions."""
    directory = DataDirectory(made.path)
    pristine = Pristine(made.path)
    bits = [bit for region in regions(directory) if chosen(region) for bit in every_bit([region], random.Random(1))][
        ::5
    ]
    assert bits
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    with watched_disk() as changes:
        sound = start(directory, made.subscribers)
        pristine.restore(changes.paths)
        for bit in bits:
            verdict = _flip(made, pristine, sound, bit, flaw)
            outcomes += verdict[0]
            kinds += verdict[1]
            pristine.restore(changes.paths | {bit.region.path})
            changes.clear()
    assert pristine.differences() == []
    return outcomes, kinds


def _flip(made: Made, pristine: Pristine, sound: object, bit: Bit, flaw: str) -> tuple[Counter[str], Counter[str]]:
    pristine.flip(bit.region.path, bit.number)
    if flaw:
        with FLAWS[flaw].made():
            found = start(DataDirectory(made.path), made.subscribers)
    else:
        found = start(DataDirectory(made.path), made.subscribers)
    verdict = judge(bit, sound, found, made)  # type: ignore[arg-type]
    return verdict.outcomes, Counter(violation.kind for violation in verdict.violations)


def of_offset(id: str) -> Callable[[Region], bool]:
    return lambda region: region.path.endswith(f"/{id}.offset")


def test_every_bit_of_an_offset_file(small: dict[str, Made]) -> None:
    outcomes, kinds = cost(small["rest"], of_offset("end"))
    assert (set(outcomes), kinds) == ({REPEATED}, {})
    outcomes, kinds = cost(small["rest"], of_offset("chain"))
    assert (set(outcomes), kinds) == ({REFUSED}, {})
    outcomes, kinds = cost(small["killed"], of_offset("chain"))  # the journal has it, too
    assert (set(outcomes), kinds) == ({HARMLESS}, {})


def test_the_checker_finds_offsets_that_are_not_checked(small: dict[str, Made]) -> None:
    _outcomes, kinds = cost(small["rest"], of_offset("slow"), "unchecked offsets")
    assert kinds["skipped"]


def test_the_checker_finds_losses_that_are_not_said(small: dict[str, Made]) -> None:
    def last_frame(region: Region) -> bool:
        return region.frame is not None and region.frame.sequence == last

    frames = [region.frame for region in regions(DataDirectory(small["cut"].path)) if region.frame is not None]
    last = max(frame.sequence for frame in frames if b'"payload"' in frame.body)
    assert cost(small["cut"], last_frame, "silent writer")[1]["silent"]
    outcomes, kinds = cost(small["cut"], last_frame)
    assert (outcomes[LOST] > 0, kinds) == (True, {})


@needs_shm
def test_a_sample_of_everything(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    flips.add_arguments(parser)
    words = ["--flips", "800", "--large", "3", "--processes", "3", "--memory", "40", "--live", "200"]
    arguments = parser.parse_args(words, argparse.Namespace(seed=20, dir=tmp_path, keep=tmp_path / "kept"))
    for report in flips.run(arguments):
        assert report.violations == []
        assert report.runs
