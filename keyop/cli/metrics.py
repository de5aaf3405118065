"""``keyop metrics``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from keyop.cli.place import Place, at_place

if TYPE_CHECKING:
    from keyop.configuration.settings import Settings


@click.command("metrics")
@at_place
@click.option(
    "--listen",
    metavar="HOST:PORT",
    is_flag=False,
    flag_value="",
    help="Serve them at /metrics until SIGTERM; without an address at metrics.listen_addr, 127.0.0.1:9464.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(place: Place, listen: str | None, log_format: str, log_level: str) -> None:
    """Print the numbers of a data directory for Prometheus, once; with --listen serve them.

    Traffic, errors, saturation and latency of the writer, each channel, subscriber and peer. Looks at shared memory and
    files alone: starts no writer, attaches nothing. Needs the extra keyop[metrics].

    \b
    Examples:
      keyop metrics -d ./data | grep lag
      keyop metrics -d ./data --listen            # at http://127.0.0.1:9464/metrics
      keyop metrics -c keyop.yaml --listen :9464  # for other hosts, too
    """
    from keyop.metrics.serving import REASON, become

    if listen is not None:
        become(_listening(place, listen), log_format=log_format, log_level=log_level)
    try:
        from keyop.metrics.exposition import Exposition
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise click.ClickException(REASON) from error
    from keyop.metrics.observer import Observer

    observer = Observer(place.directory())
    try:
        text, _ = Exposition(observer).text()
    finally:
        observer.close()
    sys.stdout.buffer.write(text)


def _listening(place: Place, listen: str) -> Settings:
    from dataclasses import replace

    from keyop.configuration.address import host_and_port

    settings = place.settings()
    if listen:
        try:
            host_and_port(listen)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--listen") from error
        settings = replace(settings, metrics=replace(settings.metrics, listen_addr=listen))
    return settings
