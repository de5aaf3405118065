"""``keyop export``."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from keyop.cli import exit_codes
from keyop.cli.moment import FORMS, Moment
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, at_place
from keyop.cli.table import counted

if TYPE_CHECKING:
    from keyop.inspection.exporting import Export

_WRITE_BYTES = 256 * 1024


@click.command("export")
@click.argument("channel", type=ChannelName())
@at_place
@click.option("--from", "start", type=Moment(), metavar="WHERE", help=f"Where to begin: {FORMS}.")
@click.option("--since", type=Moment(), metavar="WHEN", help="Published then or later: 2026-03-31T14:22, or 2h.")
@click.option("--until", type=Moment(), metavar="WHEN", help="Published before.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Not to standard output."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(
    place: Place,
    channel: str,
    start: str | int | datetime | None,
    since: str | int | datetime | None,
    until: str | int | datetime | None,
    output: Path | None,
    force: bool,
) -> int:
    """Write the messages of a channel, an envelope a line, as they are stored: for `keyop import`, or for jq.

    Reads files only, and ends where the channel ends at the start. A file is written under another name first: it is
    never there by half. Exit code 1 if something in the channel could not be read; standard error names it, all else is
    exported.

    \b
    Examples:
      keyop export orders -d ./data -o orders.jsonl
      keyop export orders --since 2026-03-01 --until 2026-04-01 -d ./data | zstd > march.jsonl.zst
      keyop export orders -d ./data | keyop import -d ./elsewhere
    """
    from keyop.inspection import survey
    from keyop.inspection.exporting import Export
    from keyop.names import check_channel

    check_channel(channel)
    directory = place.directory()
    survey.require_channel(directory, channel)
    export = Export(directory, channel, start or "earliest", _time(since, "--since"), _time(until, "--until"))  # type: ignore[arg-type]
    if output is None:
        unreadable = _write(export, sys.stdout.buffer, progress=not sys.stdout.isatty())
    else:
        if output.exists() and not force:
            raise click.ClickException(f"{output}: is there already; --force replaces it")
        if not output.parent.is_dir():
            raise click.ClickException(f"{output.parent}: there is no such directory")
        unreadable = _write_file(export, output)
    _say(
        f"{counted(export.exported, 'message')} exported"
        + (f", {unreadable:,} records not whole" if unreadable else "")
    )
    return exit_codes.FAILED if unreadable else exit_codes.OK


def _time(value: str | int | datetime | None, option: str) -> datetime | None:
    if value is not None and not isinstance(value, datetime):
        raise click.BadParameter(
            f"{value!r} is neither a time (2026-03-31T14:22) nor how long ago (10m)", param_hint=option
        )
    return value


def _write_file(export: Export, output: Path) -> int:
    draft = output.with_name(f".{output.name}.part")
    try:
        with draft.open("wb") as file:
            unreadable = _write(export, file, progress=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return unreadable


def _write(export: Export, out: BinaryIO, *, progress: bool) -> int:
    """How many records were not whole."""
    from keyop.cli.progress import Progress

    unreadable = 0
    lines: list[bytes] = []
    waiting = 0
    with Progress("exporting", wanted=progress) as shown:
        for line in export:
            lines.append(line)
            waiting += len(line)
            if waiting >= _WRITE_BYTES:
                out.write(b"\n".join(lines) + b"\n")
                lines, waiting = [], 0
                shown.show(export.offset - export.begin, export.end - export.begin, f"{export.exported:,} messages")
            unreadable += _say_notes(export)
    if lines:
        out.write(b"\n".join(lines) + b"\n")
    out.flush()
    return unreadable + _say_notes(export)


def _say_notes(export: Export) -> int:
    notes, export.notes = export.notes, []
    for note in notes:
        _say(note)
    return len(notes)


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)
