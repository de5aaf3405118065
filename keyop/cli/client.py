"""``keyop client``."""

from __future__ import annotations

import click

from keyop.cli.place import Place, at_place


@click.command("client")
@at_place
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(place: Place, log_format: str, log_level: str) -> None:
    """Be the client of a data directory: keep a connection to each hub in client.hubs, and exchange channels with them.

    Runs in the foreground until SIGTERM or SIGINT, then finishes the batches under way and closes. One client, for all
    hubs, runs on a data directory. A hub that is away is tried again for ever; what is published meanwhile waits.

    \b
    Examples:
      keyop client -c /etc/keyop.yaml
      keyop client -c client.yaml --log-format json --log-level warning
    """
    from keyop.federation.serving import become

    become("client", place.settings(), log_format=log_format, log_level=log_level)
