"""``keyop subscribers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place

if TYPE_CHECKING:
    from keyop.inspection.survey import SubscriberReport


@click.command("subscribers")
@click.argument("channel", type=ChannelName(), required=False)
@at_place
@as_json
def command(place: Place, channel: str | None, as_json: bool) -> None:
    """List the subscribers and peers of a channel, or of all: offset, lag, age of the oldest pending message.

    Reads files only; where a subscriber runs on this host, its newest offset and its pid are taken from shared memory.
    Of one whose work several processes share, the part that is furthest behind counts.

    \b
    Examples:
      keyop subscribers -d ./data
      keyop subscribers orders -d ./data --json
    """
    from keyop.inspection import survey
    from keyop.names import check_channel

    if channel is not None:
        check_channel(channel)
    reports = survey.subscribers(place.directory(), channel)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(report) for report in reports]))
        return
    from keyop.cli.table import age, size, table

    headings = ["CHANNEL", "ID", "OFFSET", "LAG", "MESSAGES", "OLDEST", "PID"]
    rows = [
        [
            report.channel,
            report.id,
            report.offset,
            size(report.lag_bytes),
            report.lag_messages,
            age(report.oldest_pending_s),
            _holders(report),
        ]
        for report in reports
    ]
    print(table(headings, rows, left=2))
    for report in reports:
        if report.fault is not None:
            click.echo(f"keyop: {report.channel}/{report.id}: the offset file counts as 0: {report.fault}", err=True)


def _holders(report: SubscriberReport) -> str | None:
    """Who handles it."""
    if report.parts > 1:
        return f"{report.parts_held} of {report.parts} parts"
    return str(report.pid) if report.pid is not None else None
