"""``keyop audit``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from keyop.cli.moment import Moment
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import short_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyop.inspection.audit_log import AuditLog, AuditRecord, Wanted

_EVENTS = (
    "forward",
    "client_connected",
    "client_rejected",
    "peer_connected",
    "peer_disconnected",
    "policy_violation",
    "loop_dropped",
    "replay_gap",
)


@click.command("audit")
@at_place
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--peer", metavar="NAME", help="Of this peer: the name in its certificate, or its address.")
@click.option("--channel", type=ChannelName(), metavar="CHANNEL", help="Of this channel.")
@click.option("--event", "events", multiple=True, type=click.Choice(_EVENTS), help="Of this kind; may be given often.")
@click.option(
    "--since", type=Moment(), metavar="WHEN", help="From a time on (2026-03-31T14:22), or of the last 10m, 2h."
)
@as_json
def command(
    place: Place,
    follow: bool,
    peer: str | None,
    channel: str | None,
    events: tuple[str, ...],
    since: str | int | datetime | None,
    as_json: bool,
) -> None:
    """Print the federation's audit log: who came and went, what passed, what was refused and why.

    Reads files only. With --json a line is the record as it is stored.

    \b
    Examples:
      keyop audit -d ./data --since 1h
      keyop audit -d ./data -f --event client_rejected --event policy_violation
      keyop audit -d ./data --peer pi-3 --channel alerts --json | jq .message_id
    """
    from keyop.inspection.audit_log import AuditLog, Wanted

    if since is not None and not isinstance(since, datetime):
        raise click.BadParameter(
            f"{since!r} is neither a time (2026-03-31T14:22) nor how long ago (10m)", param_hint="--since"
        )
    directory = place.directory()
    directory.require()
    wanted = Wanted(frozenset(events), peer or "", channel or "", since)
    if not follow and not any(directory.audit.glob("*")):
        click.echo(f"keyop: {directory.path}: there is no audit log: no hub and no client has run here", err=True)
    log = AuditLog(directory.audit, lambda path, text: click.echo(f"{path}: no record: {text!r}", err=True))
    try:
        _print(log.records(), wanted, as_json)
        if follow:
            _follow(log, wanted, as_json)
    finally:
        log.close()


def _follow(log: AuditLog, wanted: Wanted, as_json: bool) -> None:
    for record in log.follow():
        _print(iter((record,)), wanted, as_json)


def _print(records: Iterator[AuditRecord], wanted: Wanted, as_json: bool) -> None:
    for record in records:
        if wanted(record):
            sys.stdout.write((json.dumps(record, separators=(",", ":")) if as_json else _readable(record)) + "\n")
    sys.stdout.flush()


def _readable(record: AuditRecord) -> str:
    words = [
        short_time(str(record.get("ts", ""))),
        str(record.get("event", "")),
        str(record.get("direction", "")),
        str(record.get("peer") or record.get("peer_addr") or ""),
        str(record.get("channel", "")),
        str(record.get("message_id", "")),
        str(record.get("detail", "")),
    ]
    text = "  ".join(filter(None, words))
    # What a peer calls itself must not steer a terminal.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
