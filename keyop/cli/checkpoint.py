"""``keyop checkpoint``."""

from __future__ import annotations

import click

from keyop.cli import exit_codes, rest
from keyop.cli.moment import Seconds
from keyop.cli.place import Place, as_json, at_place


@click.command("checkpoint")
@at_place
@click.option("--timeout", type=Seconds(), default="60s", show_default=True, help="How long to wait for the writer.")
@as_json
def command(place: Place, timeout: float, as_json: bool) -> int:
    """Bring the journal's contents to their places, synced; the writer runs on.

    Says whether the directory is at rest now: exit code 0 if it is, 1 if somebody has published meanwhile. Without a
    writer the same as `keyop recover`.

    \b
    Examples:
      keyop checkpoint -d ./data && btrfs subvolume snapshot -r ./data ./snapshot
    """
    from keyop.inspection import at_rest

    result = at_rest.checkpoint(place.settings(), timeout)
    rest.report(result, as_json)
    return exit_codes.OK if result.at_rest else exit_codes.FAILED
