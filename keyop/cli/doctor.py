"""``keyop doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from keyop.cli import exit_codes
from keyop.cli.place import Place, as_json, at_place

if TYPE_CHECKING:
    from keyop.doctor.finding import Finding
    from keyop.doctor.subject import Subject

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@at_place
@as_json
@click.option(
    "--fail-on",
    type=click.Choice(["problem", "warning"]),
    default="problem",
    show_default=True,
    help="What counts as a failure.",
)
def command(place: Place, as_json: bool, fail_on: str) -> int:
    """Say what in this machine will hurt, and the way out.

    Looks at /dev/shm, at disk and file system of the data directory (it times 200 syncs there), at clock, limits and
    logind, and with a configuration at certificates and hubs. Without a data directory it looks at the machine alone.
    Changes nothing; its scratch file has no name.

    Exit code 0: no problems; 1: problems (with --fail-on warning: or warnings).

    \b
    Examples:
      keyop doctor -c keyop.yaml
      keyop doctor -d ./data --json | jq '.findings[] | select(.level != "ok")'
    """
    from keyop.doctor.examination import examine
    from keyop.doctor.finding import LEVELS, worst

    findings: list[Finding] = []
    for finding in examine(_subject(place)):
        findings.append(finding)
        if not as_json:
            _print(finding)
    level = worst(findings)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps({"worst": level, "findings": [asdict(finding) for finding in findings]}))
    else:
        print(_summary(findings))
    return exit_codes.FAILED if LEVELS.index(level) >= LEVELS.index(fail_on) else exit_codes.OK


def _subject(place: Place) -> Subject:
    from keyop.doctor.subject import Subject
    from keyop.errors import ConfigError

    try:
        return Subject(place.settings())
    except ConfigError as error:
        return Subject(faults=str(error))
    except click.UsageError:
        return Subject()


def _print(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.check:<14} {finding.text}")
    if finding.remedy:
        click.echo(f"{'':<24}-> {finding.remedy}")


def _summary(findings: Iterable[Finding]) -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.level] = counts.get(finding.level, 0) + 1

    def say(level: str) -> str:
        count = counts.get(level, 0)
        return f"{count} {level}{'' if count == 1 else 's'}"

    return ", ".join(say(level) for level in ("problem", "warning", "note"))
