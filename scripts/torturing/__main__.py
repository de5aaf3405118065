"""The command line: ./scripts/torture ATTACK [--seed N] [--keep DIR] [--json [FILE]] [--dir PATH] …"""

from __future__ import annotations

import argparse
import importlib
import os
import secrets
import signal
import sys
from pathlib import Path
from types import ModuleType

from torturing.findings import Report, SkippedError, as_json, as_text

ATTACKS = {
    "cuts": ("torturing.powercut.cuts", "cut the power under a real file system"),
    "faults": ("torturing.faults.scenarios", "disks that fail, are full, or are slow"),
    "kills": ("torturing.kills", "kill -9 of writer, publishers and subscribers"),
    "flips": ("torturing.flips", "single bits that turn over"),
    "habits": ("torturing.habits", "another program that writes in the directory"),
    "models": ("torturing.models", "random and exhaustive models of what no test can reach"),
    "recovery-time": ("torturing.recovery_time", "how long a recovery takes as a directory grows"),
}
"""Command → module, which is imported when it is asked for, and what it does.

Each module offers ``add_arguments(parser)``, ``run(arguments) -> Report | list[Report]`` and ``SAMPLE``, the arguments
with which ``sample`` runs it: all of them together take at most three minutes. ``run`` raises `SkippedError` where the
attack cannot be made.
"""

_REPOSITORY = Path(__file__).resolve().parents[2]


def main(words: list[str]) -> int:
    """Run one attack, or a small piece of each; 1 if any promise was broken."""
    # So that a service manager's or CI's "stop" tidies up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Where this is set every start compiles everything anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    overview = _overview()
    name = words[0] if words and not words[0].startswith("-") else overview.parse_args(words).attack
    if name == "sample":
        arguments = _parser("sample", "a small piece of every attack, at most three minutes").parse_args(words[1:])
        reports = [report for attack in ATTACKS for report in _sample(attack, arguments)]
    elif name in ATTACKS:
        module = importlib.import_module(ATTACKS[name][0])
        arguments = _arguments(name, module, words[1:])
        try:
            reports = _run(module, arguments)
        except SkippedError as reason:
            print(f"{name}: skipped: {reason}", file=sys.stderr)
            return 77
    else:
        overview.error(f"no such attack: {name}")
    print(as_text(reports))
    _write_json(arguments.json, reports)
    return max((report.exit_code for report in reports), default=0)


def _overview() -> argparse.ArgumentParser:
    texts = "\n".join(f"  {name:14} {what}" for name, (_module, what) in ATTACKS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        description=f"{__doc__}\n\n{texts}\n  sample         a small piece of each, at most three minutes\n",
        epilog="scripts/torture ATTACK --help says what each takes. Exit code 1: a promise was broken; 77: not here.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("attack", metavar="ATTACK", help="what to do")
    return parser


def _parser(name: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"scripts/torture {name}", description=what)
    parser.add_argument(
        "--seed", type=int, default=None, metavar="N", help="everything follows from it; random if not told"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where the remains of a violation are kept; build/torture unless told"
    )
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON as well, on stdout or into FILE")
    parser.add_argument("--dir", type=Path, metavar="PATH", help="where data goes meanwhile; build/ unless told")
    return parser


def _arguments(name: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    parser = _parser(name, ATTACKS[name][1])
    module.add_arguments(parser)
    return _completed(parser.parse_args(words))


def _completed(arguments: argparse.Namespace) -> argparse.Namespace:
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(1_000_000)
    arguments.dir = (arguments.dir or _REPOSITORY / "build").resolve()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    arguments.keep = (arguments.keep or _REPOSITORY / "build" / "torture").resolve()
    return arguments


def _run(module: ModuleType, arguments: argparse.Namespace) -> list[Report]:
    outcome = module.run(arguments)
    return outcome if isinstance(outcome, list) else [outcome]


def _sample(name: str, given: argparse.Namespace) -> list[Report]:
    try:
        module = importlib.import_module(ATTACKS[name][0])
        words = [*module.SAMPLE, *(["--seed", str(given.seed)] if given.seed is not None else [])]
        words += [
            *(["--keep", str(given.keep)] if given.keep else []),
            *(["--dir", str(given.dir)] if given.dir else []),
        ]
        return _run(module, _arguments(name, module, words))
    except ModuleNotFoundError as missing:
        if missing.name != ATTACKS[name][0]:
            raise
        reason = "skipped: it is not there yet"
    except SkippedError as skipped:
        reason = f"skipped: {skipped}"
    return [Report(name, notes=[reason])]


def _write_json(to: str | None, reports: list[Report]) -> None:
    if to == "-":
        print(as_json(reports))
    elif to is not None:
        Path(to).write_text(as_json(reports) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
