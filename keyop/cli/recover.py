"""``keyop recover``."""

from __future__ import annotations

import click

from keyop.cli import exit_codes, rest
from keyop.cli.place import Place, as_json, at_place


@click.command("recover")
@at_place
@as_json
def command(place: Place, as_json: bool) -> int:
    """Replay the journal of a directory that nobody writes, and leave it at rest.

    After a crash the next writer does this by itself; it is needed before a backup, a move, or before another program
    (a Go instance) opens the directory. Refused while a writer runs (exit code 69). Says what was lost or moved.

    \b
    Examples:
      keyop recover -d ./data && cp -a ./data /backup/
    """
    from keyop.inspection import at_rest

    result = at_rest.recover(place.settings())
    rest.report(result, as_json)
    return exit_codes.OK if result.at_rest else exit_codes.FAILED
