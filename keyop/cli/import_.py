"""``keyop import``."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyop.cli import exit_codes
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import counted

if TYPE_CHECKING:
    from keyop.maintenance.importing import Importer, NotImported


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), default="-")
@at_place
@click.option("--channel", type=ChannelName(), help="Into this channel, not into those that the envelopes name.")
@click.option("--skip-existing", is_flag=True, help="Pass over messages that are in their channel already.")
@click.option("--skip-bad", is_flag=True, help="Pass over lines that are no messages, and go on.")
@as_json
def command(place: Place, file: Path, channel: str | None, skip_existing: bool, skip_bad: bool, as_json: bool) -> int:
    """Put what `keyop export` wrote into channels, with ids and times as they are.

    Lines are imported in order, in batches, each of them whole or not at all and synced. A line that is no envelope, or
    a message that is in its channel already, ends it with the line's number and exit code 1: all before it are
    imported, it and those after it are not. To go on after that, or after a kill, mend the line and import the file
    again with --skip-existing. Blank lines are passed over.

    \b
    Examples:
      keyop import orders.jsonl -d ./data
      zstdcat march.jsonl.zst | keyop import --channel orders-march -d ./data
      keyop import orders.jsonl --skip-existing --skip-bad -d ./data
    """
    from keyop.cli import warnings
    from keyop.maintenance.importing import Importer
    from keyop.names import check_channel

    warnings.to_standard_error()
    if channel is not None:
        check_channel(channel)
    settings = place.settings()
    fd = sys.stdin.fileno() if str(file) == "-" else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    on_bad = _say_skipped if skip_bad else None
    with Importer(settings, channel=channel, skip_existing=skip_existing, on_bad=on_bad) as importer:
        code = _import(importer, fd, settings.storage.max_message_bytes)
    if as_json:
        import json

        counts = {"imported": importer.imported, "existing": importer.existing, "skipped": importer.skipped}
        print(json.dumps(counts))
    return code


def _import(importer: Importer, fd: int, max_line_bytes: int) -> int:
    from keyop.cli.input_lines import InputLines
    from keyop.cli.progress import Progress
    from keyop.maintenance.importing import NotImported

    lines = InputLines(fd, max_line_bytes)
    status = os.fstat(fd)
    total = status.st_size if stat.S_ISREG(status.st_mode) else 0
    ending, code = "", exit_codes.OK
    try:
        with Progress("importing") as progress:
            for batch in lines:
                importer.add([(line.number, line.text) for line in batch])
                progress.show(lines.bytes_read, total, f"{importer.imported:,} messages")
    except NotImported as bad:
        _say(f"{bad}; what came before it is imported, nothing from it on")
        code = exit_codes.FAILED
    except KeyboardInterrupt:
        ending, code = " before the interruption", exit_codes.INTERRUPTED
    existing = f", {importer.existing:,} were there already" if importer.existing else ""
    skipped = f", {importer.skipped:,} lines skipped" if importer.skipped else ""
    _say(f"{counted(importer.imported, 'message')} imported{ending}{existing}{skipped}")
    return code


def _say_skipped(bad: NotImported) -> None:
    _say(f"skipped: {bad}")


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)
