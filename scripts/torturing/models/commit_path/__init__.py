"""The commit path, as random crash states: power cuts, kills, failing syncs and another program, in units, not bytes.

`World` is one run, and everything in it follows from a seed. With all rules no promise may be broken, in any mode;
with any one of them switched off it is, which is what the rule is there for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from torturing.findings import Progress, Report, Violation
from torturing.models.commit_path.danger import Aim
from torturing.models.commit_path.ledger import Ledger
from torturing.models.commit_path.modes import MODES, Mode
from torturing.models.commit_path.rules import ALL, Rules, aims_at, runs_needed, seen_in, sentence
from torturing.models.commit_path.world import World

__all__ = ["SAMPLE", "Control", "add_arguments", "control", "play", "run", "trace"]

SAMPLE = ["--runs", "25", "--brief"]

_RUNS = 200
# One of so many is compared with keyop as well: that writes files.
_COMPARED = 20
# So many bad runs show well enough what a rule is there for.
_ENOUGH = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--runs", type=int, default=_RUNS, metavar="N", help=f"of each mode and each rule; {_RUNS}")
    parser.add_argument("--mode", choices=sorted(MODES), metavar="MODE", help="this one alone: 'strict plain', …")
    parser.add_argument("--without", choices=sorted(ALL), metavar="RULE", help="only what happens without this rule")
    parser.add_argument(
        "--conform", action="store_true", help="only compare recoveries with those of keyop, in all runs"
    )
    parser.add_argument("--brief", action="store_true", help="say what was broken, and nothing of the rest")
    parser.add_argument(
        "--trace", type=int, metavar="SEED", help="tell that run step by step, with --mode or --without"
    )


def play(seed: int, mode: Mode, rules: Rules | None = None, aims: tuple[Aim, ...] = ()) -> Ledger:
    """One run, and what was wrong."""
    return World(seed, mode, rules or Rules(), aims=aims).run()


def trace(seed: int, mode: Mode, rules: Rules | None = None, aims: tuple[Aim, ...] = ()) -> list[str]:
    """The steps of that run, in words."""
    world = World(seed, mode, rules or Rules(), aims=aims, tracing=True)
    world.run()
    assert world.trace is not None
    return world.trace


class Control:
    """Runs without one rule, in the mode where that shows, aimed at the steps where it happens."""

    def __init__(self, name: str) -> None:
        rule = ALL[name]
        self.name = name
        self.sentence = sentence(rule)
        self.mode = MODES[seen_in(rule)]
        self.runs_needed = runs_needed(rule)
        self.rules = Rules().without(name)
        self.aims = aims_at(rule)
        self.runs = 0
        self.bad: dict[int, list[tuple[str, str]]] = {}

    def __str__(self) -> str:
        kinds = sorted({kind for violations in self.bad.values() for kind, _text in violations})
        what = f" ({', '.join(kinds)}; seed {min(self.bad)})" if self.bad else ""
        return f"without {self.name}: {len(self.bad)} of {self.runs} bad in {self.mode.name}{what}. {self.sentence}"

    def play(self, seed: int) -> Ledger:
        """One run without the rule."""
        ledger = play(seed, self.mode, self.rules, self.aims)
        self.runs += 1
        if ledger.violations:
            self.bad[seed] = ledger.violations
        return ledger


def control(name: str, seeds: range, enough: int = 1) -> Control:
    """Runs without a rule, until so many of them were bad."""
    made = Control(name)
    for seed in seeds:
        made.play(seed)
        if len(made.bad) >= enough:
            break
    return made


def run(arguments: argparse.Namespace) -> Report:
    """All modes with all rules, and each rule switched off; or one of them, or one run in words."""
    report = Report("models commit-path")
    if arguments.trace is not None:
        report.notes += _told(arguments)
        return report.finish()
    modes = [MODES[arguments.mode]] if arguments.mode else list(MODES.values())
    rules = [arguments.without] if arguments.without else list(ALL)
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    if arguments.conform:
        _compare(modes, seeds, arguments, report)
        return report.finish()
    progress = Progress(report.attack, len(modes) + len(rules))
    for mode in () if arguments.without else modes:
        _play_mode(mode, seeds, report, arguments.keep)
        progress.at(len(report.notes), mode.name)
    for name in () if arguments.mode else rules:
        _play_without(name, seeds, report)
        progress.at(len(report.notes), f"without {name}")
    if not arguments.without:
        _compare(modes, seeds[: max(1, len(seeds) // _COMPARED)], arguments, report)
    if arguments.brief:
        report.notes.clear()
    return report.finish()


def _play_without(name: str, seeds: range, report: Report) -> None:
    # Where a window is met in one of a hundred runs, a short look says nothing.
    runs = max(len(seeds), Control(name).runs_needed) if len(seeds) >= _RUNS else len(seeds)
    found = control(name, range(seeds.start, seeds.start + runs), _ENOUGH)
    report.runs += found.runs
    report.notes.append(str(found))
    if found.bad:
        report.counts["rules needed"] += 1
    elif found.runs >= found.runs_needed:
        report.add([Violation("control", f"without {name} nothing went wrong in {found.runs} runs")], seeds.start)


def _compare(modes: list[Mode], seeds: range, arguments: argparse.Namespace, report: Report) -> None:
    """From the same crash states keyop recovers what the model recovers."""
    from torturing.models.commit_path.conformance import Conformance

    progress = Progress(f"{report.attack}, compared with keyop", len(modes) * len(seeds))
    for number, (mode, seed) in enumerate((mode, seed) for mode in modes for seed in seeds):
        with tempfile.TemporaryDirectory(prefix="compare-", dir=arguments.dir) as place:
            made = Conformance(seed, mode, Path(place))
        report.runs += 1
        report.counts["recoveries compared"] += made.compared
        if made.differences:
            text = f"{mode.name}: {made.differences[0]}"
            report.add([Violation("unlike", text)], seed, _keep(arguments.keep, mode, seed))
        progress.at(number + 1, mode.name)


def _play_mode(mode: Mode, seeds: range, report: Report, kept: Path | None) -> None:
    bad = 0
    for seed in seeds:
        ledger = play(seed, mode)
        report.runs += 1
        report.counts.update(ledger.counts)
        if ledger.violations:
            bad += 1
            # What follows from the first one fills pages; all of it stands in the trace.
            kind, text = ledger.violations[0]
            report.add([Violation(kind, f"{mode.name}: {text}")], seed, _keep(kept, mode, seed))
    report.notes.append(f"{mode.name}: {bad} of {len(seeds)} bad with all rules")


def _keep(kept: Path | None, mode: Mode, seed: int) -> Path | None:
    if kept is None:
        return None
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / f"commit-path-{mode.name.replace(' ', '-')}-{seed}.txt"
    path.write_text("\n".join(trace(seed, mode)) + "\n")
    return path


def _told(arguments: argparse.Namespace) -> list[str]:
    if arguments.without:
        found = Control(arguments.without)
        return trace(arguments.trace, found.mode, found.rules, found.aims)
    return trace(arguments.trace, MODES[arguments.mode or "strict plain"])
