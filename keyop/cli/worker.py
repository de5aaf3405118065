"""``keyop worker``."""

from __future__ import annotations

import click

from keyop.cli.moment import Seconds
from keyop.cli.names import SubscriberId
from keyop.cli.paths import files
from keyop.cli.place import Place, at_place

_MOST_PROCESSES = 64


@click.command("worker")
@click.argument("app", metavar="MODULE:APP", shell_complete=files)
@at_place
@click.option(
    "--processes",
    type=click.IntRange(1, _MOST_PROCESSES),
    default=1,
    show_default=True,
    help="So many processes share the work of each id.",
)
@click.option("--only", type=SubscriberId(), multiple=True, metavar="ID", help="Handle this id alone; may be repeated.")
@click.option(
    "--grace", type=Seconds(), default="10", show_default=True, help="How long to finish what is in hand at the end."
)
@click.option("--reload", "reloads", is_flag=True, help="Start again whenever the source changes, for development.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(
    place: Place,
    app: str,
    processes: int,
    only: tuple[str, ...],
    grace: float,
    reloads: bool,
    log_format: str,
    log_level: str,
) -> int:
    """Run the handlers of an app: APP in MODULE, which is imported, also from the current directory.

    Runs in the foreground until SIGTERM or SIGINT, then finishes what is in hand, for at most --grace seconds. What is
    not finished comes again.

    With --processes N that many processes share the work: messages with the same key (see key= of App.on, the id
    without one) are handled in order by one of them. Subscriptions with exactly_once are the first one's alone. A
    process that dies is started again.

    \b
    Examples:
      keyop worker shop.orders:app -d ./data
      keyop worker shop.orders:app -c keyop.yaml --processes 4
      keyop worker alarms:app -d ./data --only notifier --reload

    \b
    Exit codes: 0 left as told; 1 the app cannot be imported, or cannot start; 69 another process handles an id;
    75 left while a handler still ran.
    """
    from keyop.workers.command import WorkerOptions, become
    from keyop.workers.loading import parse

    settings = place.settings()
    options = WorkerOptions(parse(app), only, grace_s=grace, log_format=log_format, log_level=log_level)
    if processes == 1 and not reloads:
        become(options, settings)
    from keyop.workers.crew import run

    return run(options, settings, processes, reloads=reloads)
