"""``keyop hub``."""

from __future__ import annotations

import click

from keyop.cli.place import Place, at_place


@click.command("hub")
@at_place
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(place: Place, log_format: str, log_level: str) -> None:
    """Be the hub of a data directory: let the peers in that hub.allowed_peers names, and exchange channels with them.

    Runs in the foreground until SIGTERM or SIGINT, then finishes the batches under way and closes. One hub runs on a
    data directory. It listens at hub.listen_addr (:7740) with the certificate of section tls.

    \b
    Examples:
      keyop hub -c /etc/keyop.yaml
      keyop hub -c hub.yaml --log-format json --log-level warning
    """
    from keyop.federation.serving import become

    become("hub", place.settings(), log_format=log_format, log_level=log_level)
