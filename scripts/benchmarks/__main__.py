"""The command line: ./scripts/bench local|federation|operate, and see its --help."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from benchmarks import device, drain, footprint, latency, publish, scale
from benchmarks.contender import Contender
from benchmarks.federation import crowd, throughput
from benchmarks.federation import latency as between_hosts
from benchmarks.federation.echo import Echo
from benchmarks.figure import Measurement, Room, Scale, Skipped
from benchmarks.floor import Floor
from benchmarks.machine import describe
from benchmarks.operate import mending, scrape, sharing, top, up
from benchmarks.ours import Keyop
from benchmarks.report import as_json, table
from benchmarks.results import Results
from benchmarks.rivals import rivals

_GROUPS: dict[str, dict[str, ModuleType]] = {
    "local": {
        "publish": publish,
        "latency": latency,
        "drain": drain,
        "scale": scale,
        "device": device,
        "footprint": footprint,
    },
    "federation": {
        "latency": between_hosts,
        "throughput": throughput,
        "crowd": crowd,
    },
    "operate": {
        "up": up,
        "mending": mending,
        "sharing": sharing,
        "top": top,
        "scrape": scrape,
    },
}
_REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure, print, tidy up."""
    options = _parse()
    # So that a service manager's or CI's "stop" tidies up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Where this is set every start compiles everything anew, which is slow and leaves memory behind. Users' do not.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    base = (options.dir or _REPOSITORY / "build").resolve()
    base.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    results = Results()
    try:
        machine = describe(place)
        groups = _GROUPS[options.what]
        contenders = _contenders(options.what, options.contenders, results)
        measurements = list(_measurements(groups, options.only, contenders, options.match))
        for repeat in range(options.repeats):
            # All of them, then all of them again: what disturbs the machine for a minute disturbs everybody.
            for measurement in measurements:
                _measure(measurement, repeat, place, Scale(options.quick), results)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    _print(groups, options.json, machine, contenders, results)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "what",
        choices=_GROUPS,
        help="what to measure: all that happens on one host, between hosts, or in operation",
    )
    names = "; ".join(f"{what}: {', '.join(_names(what))}" for what in _GROUPS)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="GROUP,…", help=f"some of {names}")
    parser.add_argument("--match", default="", metavar="TEXT", help="only measurements with this in their name")
    parser.add_argument(
        "--contenders", type=lambda text: text.split(","), metavar="NAME,…", help="of keyop, floor, redis, …"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="3 unless told")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work: for a look, not for figures")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON instead of the table, or into FILE beside it"
    )
    parser.add_argument(
        "--dir", type=Path, metavar="PATH", help="where the data goes; the repository's disk unless told"
    )
    options = parser.parse_args()
    options.only = options.only or _names(options.what)
    unknown = [name for name in options.only if name not in _names(options.what)]
    if unknown:
        parser.error(f"no such group in {options.what}: {', '.join(unknown)}")
    return options


def _names(what: str) -> list[str]:
    return ["floor", *_GROUPS[what]] if what == "local" else [*_GROUPS[what]]


def _contenders(what: str, wanted: list[str] | None, results: Results) -> list[Contender]:
    """Those that are wanted and installed. The floor stands beside keyop, so that they meet the same noise."""
    present = []
    others = {"local": rivals, "federation": lambda: [Echo()], "operate": list}[what]()
    for contender in [Floor(), Keyop(), *others]:
        if wanted and contender.key not in wanted:
            continue
        reason = contender.absent()
        if reason is None:
            present.append(contender)
        else:
            results.miss("all", contender.label, reason)
    return present


def _measurements(
    groups: dict[str, ModuleType], only: list[str], contenders: list[Contender], match: str
) -> Iterable[Measurement]:
    for name, group in groups.items():
        if name in only:
            yield from (m for m in group.measurements(contenders) if match in m.name)
    if "floor" in only and "publish" not in only:
        yield from publish.measurements([contender for contender in contenders if isinstance(contender, Floor)])


def _measure(measurement: Measurement, repeat: int, place: Path, scale_: Scale, results: Results) -> None:
    room = Room(place / "room", scale_)
    room.place.mkdir()
    # What others have written must not be synced in our time.
    os.sync()
    time.sleep(0.1)
    began = time.monotonic()
    try:
        values = measurement.run(room)
        results.add(repeat, measurement.contender, values)
        outcome = ", ".join(f"{key} {value:,.2f}" for key, value in values.items())
    except Skipped as reason:
        results.miss(measurement.name, measurement.contender, str(reason))
        outcome = f"skipped: {reason}"
    except Exception as error:
        # One that fails must not cost the others their hour.
        results.miss(measurement.name, measurement.contender, f"failed: {_last_line(error)}")
        outcome = f"failed: {error}"
    finally:
        shutil.rmtree(room.place, ignore_errors=True)
    took = time.monotonic() - began
    print(f"[{repeat + 1}] {measurement.contender:10} {outcome} ({took:.1f} s)", file=sys.stderr, flush=True)


def _last_line(error: Exception) -> str:
    """Of a traceback it is the one that says what happened."""
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _print(
    groups: dict[str, ModuleType],
    json_to: str | None,
    machine: dict[str, str],
    contenders: list[Contender],
    results: Results,
) -> None:
    titles = {key: title for group in groups.values() for key, title in group.TITLES.items()}
    labels = {contender.key: contender.label for contender in contenders}
    if json_to is not None:
        text = as_json(machine, titles, labels, results)
        if json_to == "-":
            print(text)
            return
        Path(json_to).write_text(text + "\n")
    print(table(machine, titles, labels, results))


if __name__ == "__main__":
    sys.exit(main())
