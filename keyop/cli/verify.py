"""``keyop verify``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from keyop.cli import exit_codes
from keyop.cli.asking import agreed, as_yes
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import counted

if TYPE_CHECKING:
    from keyop.inspection.verification import Verification


@click.command("verify")
@at_place
@click.option("--repair", is_flag=True, help="Repair what can be repaired without losing anything. Asks.")
@as_yes
@as_json
def command(place: Place, repair: bool, yes: bool, as_json: bool) -> int:
    """Check every segment, offset file and name, and the journal; without --repair, change nothing.

    Exit code 0: no problems; 1: problems. Notes are no problems. May run beside a writer: what is being written then
    is no fault.

    With --repair, and only while no writer runs (exit code 69), the journal is replayed, torn ends are cut, what is no
    part of a channel is moved away, and offsets are brought to where their subscribers would go on. Copies of all that
    is changed stay in repair/ in the data directory. What cannot be brought back is left, and named: readers pass over
    a damaged record, and `keyop offsets set` says where a subscriber goes on whose offset is damaged.

    \b
    Examples:
      keyop verify -d ./data
      keyop verify -d /backup/data --json | jq '.problems[].text'
      keyop verify --repair -d ./data
    """
    from keyop.cli.progress import Progress
    from keyop.inspection.verification import verify

    directory = place.directory()
    if repair:
        from keyop.maintenance.repair import refuse_running

        directory.require()
        refuse_running(directory)
    with Progress("verifying") as progress:
        found = verify(directory.path, progress.show)
    if repair:
        return _repair(place, found, yes, as_json)
    if as_json:
        _print_json(found)
    else:
        _print(found)
    return exit_codes.FAILED if found.problems else exit_codes.OK


def _repair(place: Place, found: Verification, yes: bool, as_json: bool) -> int:
    from dataclasses import replace

    from keyop.cli.progress import Progress
    from keyop.maintenance.repair import plan, repair

    steps = plan(found)
    if not as_json:
        _print(found)
    if not steps:
        _say("there is nothing that can be repaired")
        if as_json:
            _print_json(found, repaired=[], copies=None)
        return exit_codes.FAILED if found.problems else exit_codes.OK
    for step in steps if not as_json else []:
        print(f"to do: {step.path}: {step.text}")
    if not agreed(f"Do these {len(steps)} repairs?", yes):
        _say("nothing was changed")
        return exit_codes.FAILED
    settings = place.settings()
    settings = replace(settings, storage=replace(settings.storage, data_dir=found.data_dir))
    with Progress("verifying again") as progress:
        result = repair(settings, found, steps, progress.show)
    if as_json:
        _print_json(result.after, repaired=[step._asdict() for step in result.done], copies=result.copies)
    else:
        for step in result.done:
            print(f"repaired: {step.path}: {step.text}")
        if result.copies is not None:
            print(f"copies of what was changed: {result.copies}")
        _print(result.after)
    return exit_codes.FAILED if result.after.problems else exit_codes.OK


def _print(found: Verification) -> None:
    for finding in sorted(found.findings, key=lambda finding: finding.severity == "note"):
        print(finding)
    print(_summary(found))


def _print_json(found: Verification, **more: Any) -> None:
    import json
    from dataclasses import asdict

    report = {name: value for name, value in asdict(found).items() if name != "findings"}
    report["clean"] = not found.problems
    report["problems"] = [asdict(finding) for finding in found.problems]
    report["notes"] = [asdict(finding) for finding in found.notes]
    print(json.dumps({**report, **more}))


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)


def _summary(found: Verification) -> str:
    result = counted(len(found.problems), "problem") if found.problems else "clean"
    return (
        f"{result}, {counted(len(found.notes), 'note')}: {counted(found.channels, 'channel')}, "
        f"{counted(found.segments, 'segment')}, {counted(found.records, 'record')}, {counted(found.bytes, 'byte')}, "
        f"{counted(found.offset_files, 'offset file')}"
    )
