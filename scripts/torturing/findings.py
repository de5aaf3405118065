"""What an attack found: violations, counts, and the images that are kept for a second look."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

LOSSES = ("lost", "doubled", "torn")
"""The kinds that each summary line names, also where there are none."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was broken."""

    kind: str
    """A word: ``lost``, ``doubled``, ``torn``, ``half``, ``disorder``, ``hang``, ``crash``, ``verify``, …"""
    text: str
    """What was found, with the names, numbers and offsets that one needs to look for it."""
    seed: str = ""
    """What to give to the command to see it again, as far as processes allow that."""
    kept: str = ""
    """Where the directory or image was kept."""
    count: int = 1
    """How many messages, lines, … it is about."""

    def __str__(self) -> str:
        where = "".join(f" [{word} {value}]" for word, value in (("seed", self.seed), ("kept", self.kept)) if value)
        return f"{self.kind}: {self.text}{where}"


class SkippedError(Exception):
    """An attack cannot be made here; the text says what is missing (root, /dev/fuse, mkfs.xfs, …)."""


@dataclass(slots=True)
class Report:
    """The outcome of one attack."""

    attack: str
    """Its name, as on the command line, with what it was made on: ``cuts ext4``."""
    runs: int = 0
    """Kills, cuts, flips, …"""
    counts: Counter[str] = field(default_factory=Counter)
    """``acknowledged`` and whatever else was counted."""
    recovered_ms: list[float] = field(default_factory=list)
    """How long each recovery took."""
    violations: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader has to know: a control that found losses, a part that was skipped."""
    began_s: float = field(default_factory=time.monotonic)
    took_s: float = 0.0

    def add(self, found: Iterable[Violation], seed: object = "", kept: Path | None = None) -> None:
        """Take violations over, and say them at once: a long run may never come to its end."""
        for violation in found:
            whole = replace(violation, seed=violation.seed or str(seed), kept=violation.kept or str(kept or ""))
            self.violations.append(whole)
            print(f"{self.attack}: {whole}", file=sys.stderr, flush=True)

    def finish(self) -> Report:
        """Stop the clock."""
        self.took_s = time.monotonic() - self.began_s
        return self

    def must_have_found(self, kind: str, control: str) -> None:
        """For a control, where something is wrong on purpose: what was found is well; nothing is the violation."""
        found = sum(violation.count for violation in self.violations if violation.kind == kind)
        self.notes.append(f"control, {control}: {found} {kind}")
        self.violations.clear()
        if not found:
            self.violations.append(Violation("control", f"{control}: nothing {kind} was found"))

    @property
    def exit_code(self) -> int:
        """1 if there was any violation."""
        return 1 if self.violations else 0

    def line(self) -> str:
        """The summary: runs, what was counted, losses, recoveries."""
        kinds: Counter[str] = Counter()
        for violation in self.violations:
            kinds[violation.kind] += violation.count
        others = {kind: count for kind, count in kinds.items() if kind not in LOSSES}
        words = [f"{self.attack}: {self.runs:,} in {self.took_s:.0f} s"]
        words += [f"{count:,} {what}" for what, count in self.counts.items()]
        words += [f"{kinds[kind]} {kind}" for kind in LOSSES]
        words += [f"{count} {kind}" for kind, count in sorted(others.items())]
        if self.recovered_ms:
            middle, most = percentile(self.recovered_ms, 0.5), max(self.recovered_ms)
            words.append(f"recovered in {middle:.0f} ms (p50), {most:.0f} ms (max)")
        return ", ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        recovered = self.recovered_ms
        return {
            "attack": self.attack,
            "runs": self.runs,
            "seconds": round(self.took_s, 1),
            "counts": dict(self.counts),
            "recoveries": len(recovered),
            "recovered_ms_p50": round(percentile(recovered, 0.5), 1) if recovered else None,
            "recovered_ms_max": round(max(recovered), 1) if recovered else None,
            "violations": [asdict(violation) for violation in self.violations],
            "notes": self.notes,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def as_text(reports: Iterable[Report]) -> str:
    """A line for each attack, its notes and its violations below it."""
    lines = []
    for report in reports:
        lines.append(report.line())
        lines += [f"  {note}" for note in report.notes]
        lines += [f"  {violation}" for violation in report.violations]
    return "\n".join(lines)


def as_json(reports: Iterable[Report]) -> str:
    """The same for programs."""
    return json.dumps([report.as_dict() for report in reports], indent=1)


class Progress:
    """A line on stderr, written anew twice a second; where that is no terminal, a new one every ten seconds."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._began_s = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next_s = self._began_s + (0.5 if self._terminal else 10.0)

    def at(self, done: int, details: str = "") -> None:
        """Say how far it is."""
        now_s = time.monotonic()
        if now_s < self._next_s and not (self._terminal and done >= self._total):
            return
        self._next_s = now_s + (0.5 if self._terminal else 10.0)
        rate = done / max(0.001, now_s - self._began_s)
        text = f"{self._what}: {done:,} of {self._total:,}, {rate:.1f} a second {details}".rstrip()
        ending = "\n" if not self._terminal or done >= self._total else ""
        print(
            f"\r{text}\033[K{ending}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr
        )
        sys.stderr.flush()


def keep(source: Path, into: Path | None, name: str) -> Path | None:
    """Copy a directory or an image for a second look; where it is then. ``into`` None: it is not kept."""
    if into is None:
        return None
    into.mkdir(parents=True, exist_ok=True)
    target = into / name
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Images are mostly holes.
        import subprocess

        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    return target
