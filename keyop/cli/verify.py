"""``keyop verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keyop.cli import exit_codes
from keyop.cli.place import Place, as_json, at_place

if TYPE_CHECKING:
    from keyop.inspection.verification import Verification


@click.command("verify")
@at_place
@as_json
def command(place: Place, as_json: bool) -> int:
    """Check every segment, offset file and name, and the journal; change nothing.

    Exit code 0: no problems; 1: problems. Notes are no problems. May run beside a writer: what is being written then
    is no fault.

    \b
    Examples:
      keyop verify -d ./data
      keyop verify -d /backup/data --json | jq '.problems[].text'
    """
    from keyop.cli.progress import Progress
    from keyop.inspection.verification import verify

    with Progress("verifying") as progress:
        found = verify(place.directory().path, progress.show)
    if as_json:
        _print_json(found)
    else:
        for finding in sorted(found.findings, key=lambda finding: finding.severity == "note"):
            print(finding)
        print(_summary(found))
    return exit_codes.FAILED if found.problems else exit_codes.OK


def _print_json(found: Verification) -> None:
    import json
    from dataclasses import asdict

    report = {name: value for name, value in asdict(found).items() if name != "findings"}
    report["clean"] = not found.problems
    report["problems"] = [asdict(finding) for finding in found.problems]
    report["notes"] = [asdict(finding) for finding in found.notes]
    print(json.dumps(report))


def _summary(found: Verification) -> str:
    result = f"{len(found.problems)} problems" if found.problems else "clean"
    return (
        f"{result}, {len(found.notes)} notes: {found.channels} channels, {found.segments} segments, "
        f"{found.records:,} records, {found.bytes:,} bytes, {found.offset_files} offset files"
    )
