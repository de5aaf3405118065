"""The hand-off between processes, in every interleaving: rings, flags, semaphores, ticks, and writers that come and go.

``scenes`` says what is explored, ``rules`` and the code's own names say what stands there. A scene must hold with all
rules; without any one of them something has to go wrong, or the rule is for nothing (or the model is).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from torturing.findings import Progress, Report, Violation
from torturing.models.hand_off.explore import Outcome, explore
from torturing.models.hand_off.scenes import CONTROLS, DEEP, KNOWN, SCENES, model, without

__all__ = ["SAMPLE", "add_arguments", "control", "play", "run", "show"]

SAMPLE: list[str] = []

_KINDS = {"lost": "lost", "doubled": "doubled", "a second time": "doubled", "two writers": "two writers"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--deep", action="store_true", help="the larger scenes, too: two minutes and 4 GiB")
    parser.add_argument(
        "--show", metavar="RULE", choices=sorted(CONTROLS), help="what goes wrong without a rule, step by step"
    )


def play(name: str) -> Outcome:
    """Explore one scene with all rules."""
    return explore(model({**SCENES, **DEEP, **KNOWN}[name]))


def control(rule: str) -> Outcome:
    """Explore the scene of one rule without it."""
    return explore(model(*without(rule)))


def show(rule: str) -> str:
    """What goes wrong without a rule, in words."""
    outcome = control(rule)
    return f"without {rule}, after {outcome.states:,} states:\n{outcome.as_text()}"


def run(arguments: argparse.Namespace) -> Report:
    """Explore all scenes, and one scene without each rule."""
    report = Report("models hand-off")
    if getattr(arguments, "show", None):
        report.notes.append(show(arguments.show))
        return report.finish()
    deep, kept = getattr(arguments, "deep", False), getattr(arguments, "keep", None)
    scenes = {**SCENES, **(DEEP if deep else {})}
    progress = Progress(report.attack, len(scenes) + len(CONTROLS))
    waits: set[str] = set()
    for name in scenes:
        progress.at(report.runs, name)
        outcome = play(name)
        _count(report, outcome)
        waits.update("; ".join(outcome.waits).split("; "))
        if outcome.broken:
            report.add(
                [Violation(_kind(outcome.broken), f"{name}: {outcome.broken}")],
                kept=_keep(kept, name, outcome),
            )
    for rule, (_place, wrong) in CONTROLS.items():
        progress.at(report.runs, f"without {rule}")
        outcome = control(rule)
        _count(report, outcome)
        if wrong in outcome.broken:
            report.counts["rules needed"] += 1
        else:
            text = f"without {rule} it should be that {wrong!r}, and it is {outcome.broken or 'all right'!r}"
            report.add([Violation("control", text)], kept=_keep(kept, rule, outcome))
    report.notes += [f"waits for a tick, at most half a second: {what}" for what in sorted(waits - {""})]
    for name in KNOWN if deep else ():
        outcome = play(name)
        _count(report, outcome)
        report.notes.append(f"known: {name}: {outcome.broken or 'it no longer goes wrong'}")
    return report.finish()


def _count(report: Report, outcome: Outcome) -> None:
    report.runs += 1
    report.counts["states"] += outcome.states
    report.counts["steps"] += outcome.steps


def _kind(broken: str) -> str:
    return next((kind for text, kind in _KINDS.items() if text in broken and "wake-up" not in broken), "hang")


def _keep(directory: Path | None, name: str, outcome: Outcome) -> Path | None:
    if directory is None:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"hand-off-{re.sub('[^a-z0-9]+', '-', name)}.txt"
    path.write_text(outcome.as_text() + "\n")
    return path
