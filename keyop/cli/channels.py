"""``keyop channels``."""

from __future__ import annotations

import click

from keyop.cli.place import Place, as_json, at_place


@click.command("channels")
@at_place
@click.option("--count", is_flag=True, help="Count the records, by reading every segment.")
@as_json
def command(place: Place, count: bool, as_json: bool) -> None:
    """List the channels: size, segments, offsets, subscribers, last write.

    Reads files only; no writer is needed or started. FIRST and END are offsets in bytes: below FIRST everything has
    been removed.

    \b
    Examples:
      keyop channels -d ./data
      keyop channels -d ./data --count --json
    """
    from keyop.inspection import survey

    reports = survey.channels(place.directory(), count=count)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(report) for report in reports]))
        return
    from keyop.cli.table import size, table

    headings = ["CHANNEL", "LAST WRITE", "SIZE", "SEGMENTS", "FIRST", "END", "SUBSCRIBERS"]
    rows = [
        [
            report.channel,
            report.last_write[:19] + "Z" if report.last_write else None,
            size(report.bytes),
            report.segments,
            report.first_offset,
            report.end_offset,
            report.subscribers,
            *([report.records] if count else []),
        ]
        for report in reports
    ]
    print(table(headings + ["RECORDS"] * count, rows, left=2))
