"""Models of what no test can reach: ``models`` runs all of them, ``models commit-path`` or ``models hand-off`` one."""

from __future__ import annotations

import argparse
import copy
import importlib
from types import ModuleType

from torturing.findings import Report, SkippedError

MODELS = {
    "commit-path": "torturing.models.commit_path",
    "hand-off": "torturing.models.hand_off",
}
"""Command → module; each offers what an attack offers."""

SAMPLE: list[str] = []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command for each model; options that all attacks take stand before it."""
    commands = parser.add_subparsers(dest="model", metavar="MODEL", title="models, all unless one is named")
    for name in MODELS:
        module = _module(name)
        if module is not None:
            module.add_arguments(commands.add_parser(name, help=(module.__doc__ or "").partition("\n")[0]))


def run(arguments: argparse.Namespace) -> list[Report]:
    """One of them, or a piece of each."""
    if arguments.model is not None:
        return _reports(importlib.import_module(MODELS[arguments.model]), arguments)
    reports = []
    for name in MODELS:
        module = _module(name)
        if module is None:
            reports.append(Report(f"models {name}", notes=["skipped: it cannot be run yet"]))
            continue
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        try:
            reports += _reports(module, parser.parse_args(module.SAMPLE, copy.copy(arguments)))
        except SkippedError as reason:
            reports.append(Report(f"models {name}", notes=[f"skipped: {reason}"]))
    return reports


def _reports(module: ModuleType, arguments: argparse.Namespace) -> list[Report]:
    outcome = module.run(arguments)
    return outcome if isinstance(outcome, list) else [outcome]


def _module(name: str) -> ModuleType | None:
    """None while it has no ``run``."""
    module = importlib.import_module(MODELS[name])
    return module if hasattr(module, "run") else None
