"""``keyop writer``."""

from __future__ import annotations

import os
import sys

import click

from keyop.cli.moment import Seconds
from keyop.cli.place import Place, at_place

_FORMATS = ["text", "json"]
_LEVELS = ["debug", "info", "warning", "error"]


@click.command("writer")
@at_place
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option(
    "--idle-exit",
    type=Seconds(),
    help="Leave when nobody has been attached for so long, like a writer that was started on demand. "
    "Without it the writer stays, and nobody else starts one.",
)
def command(place: Place, log_format: str, log_level: str, idle_exit: float | None) -> None:
    """Be the writer of a data directory, in the foreground, until SIGTERM or SIGINT.

    A writer that was started on demand is asked to leave first. Logs go to standard error, one line an event. Leaves
    nothing behind: commits what waits, and the directory is at rest.

    \b
    Exit codes: 0 left as told; 69 another writer runs; 70 crashed; 73 cannot start; 75 not all was committed.

    \b
    Examples:
      keyop writer -d /var/lib/keyop
      keyop writer -c /etc/keyop.yaml --log-format json
    """
    from keyop.attachment.spawn import writer_environment
    from keyop.protocol.writer_options import WriterOptions

    options = WriterOptions.from_settings(place.settings())
    options.data_dir = os.path.abspath(options.data_dir)
    if idle_exit is not None:
        options.idle_exit = idle_exit
    kind = ["on_demand=1", "take_over=1"] if idle_exit is not None else []
    arguments = [*kind, f"log_format={log_format}", f"log_level={log_level}"]
    # What was needed to read the configuration (click, pydantic, YAML) does not stay in a writer's memory.
    os.chdir("/")
    python = [sys.executable, "-m", "keyop.writer", *arguments, *options.to_arguments()]
    os.execve(sys.executable, python, writer_environment())
