"""``keyop stop``."""

from __future__ import annotations

import click

from keyop.cli import exit_codes
from keyop.cli.moment import Seconds
from keyop.cli.place import Place, at_place


@click.command("stop")
@at_place
@click.option("--timeout", type=Seconds(), help="How long to wait until it has ended; as long as it takes unless told.")
def command(place: Place, timeout: float | None) -> int:
    """Have the supervisor of a data directory (`keyop up`) stop everything and end, and wait for that.

    Its processes finish what is in hand, within the --grace of `keyop up`.

    \b
    Examples:
      keyop stop -c keyop.yaml
      keyop stop -d ./data --timeout 10s

    \b
    Exit codes: 0 it has ended; 69 no supervisor runs; 75 not within --timeout: it is still stopping.
    """
    from keyop.supervisor.asking import Supervisor

    with Supervisor(place.directory()) as supervisor:
        pid = supervisor.ask("stop")["pid"]
        if not supervisor.wait_for_end(timeout):
            click.echo(f"keyop: pid {pid} has not ended within {timeout:g} s, and is still stopping", err=True)
            return exit_codes.TEMPORARY
    click.echo(f"stopped, pid {pid}")
    return exit_codes.OK
