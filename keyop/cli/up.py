"""``keyop up``."""

from __future__ import annotations

import click

from keyop.cli.moment import Seconds
from keyop.cli.place import Place, at_place


@click.command("up")
@at_place
@click.option(
    "--grace",
    type=Seconds(),
    default="30",
    show_default=True,
    help="How long all have together to finish what is in hand at the end; then they are killed.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(place: Place, grace: float, log_format: str, log_level: str) -> None:
    """Run what a configuration asks for: writer, hub, client, metrics, dashboard, workers.

    The configuration is keyop.yaml in this directory, unless --config names another.

    Each is a process of its own, and runs where it is enabled. They are started in order; what dies is started again,
    after a pause that grows to half a minute. Runs in the foreground until SIGTERM or SIGINT, then stops them in
    reverse order. A second signal ends all at once. Their output goes to standard error, a role before each line.

    When the configuration changes, or at SIGHUP, what has changed is started again and everything else left alone. A
    configuration with faults is told, and changes nothing.

    \b
    Examples:
      keyop init && keyop up
      keyop up -c /etc/keyop.yaml --log-format json
      keyop status -c /etc/keyop.yaml; keyop restart -c /etc/keyop.yaml hub; keyop stop -c /etc/keyop.yaml

    \b
    Exit codes: 0 left as told; 2 configuration; 69 a supervisor or a writer runs there already; that of the process
    that cannot start, whose last lines are printed; 1 anything else.
    """
    from keyop.supervisor.becoming import become
    from keyop.supervisor.roles import Options

    place = place.with_file()
    become(place.settings(), Options(log_format=log_format, log_level=log_level, grace_s=grace), place.data_dir)
