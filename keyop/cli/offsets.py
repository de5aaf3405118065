"""``keyop offsets``."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from keyop.cli import exit_codes
from keyop.cli.asking import agreed, as_yes
from keyop.cli.moment import Moment
from keyop.cli.names import ChannelName, SubscriberId
from keyop.cli.place import Place, as_json, at_place

if TYPE_CHECKING:
    from keyop.inspection.standing import Standing


@click.group("offsets")
def command() -> None:
    """Show where subscribers stand, move one, or forget one.

    An offset is where a subscriber's next message begins, in bytes. One is moved only while nobody runs under the
    subscriber's id; the writer does it.

    \b
    Examples:
      keyop offsets show orders -d ./data
      keyop offsets set orders billing 2h -d ./data
      keyop offsets forget orders old-report -d ./data
    """


@command.command("show", short_help="Show where everybody stands, and what comes next.")
@click.argument("channel", type=ChannelName())
@click.argument("id", type=SubscriberId(), required=False)
@at_place
@as_json
def show(place: Place, channel: str, id: str | None, as_json: bool) -> int:
    """Show where the subscribers and peers of a channel stand, and the message that comes next for each.

    Reads files and shared memory only.

    \b
    Examples:
      keyop offsets show orders -d ./data
      keyop offsets show orders billing --json -d ./data | jq '.[0].next_id'
    """
    from keyop.inspection.standing import standings
    from keyop.maintenance.offsets import require_subscriber
    from keyop.names import check_channel

    check_channel(channel)
    directory = place.directory()
    found = standings(directory, channel)
    if id is not None:
        found = [standing for standing in found if standing.id == id]
        if not found:
            require_subscriber(directory, channel, id)
    if as_json:
        import json

        print(json.dumps([standing._asdict() for standing in found]))
        return exit_codes.OK
    from keyop.cli.table import table

    headings = ["ID", "NEXT MESSAGE", "PUBLISHED", "OFFSET", "END", "LAG", "PID"]
    print(table(headings, [_row(standing) for standing in found], left=3))
    for standing in found:
        if standing.fault is not None:
            _say(f"{channel}/{standing.id}: the offset file counts as 0: {standing.fault}")
    return exit_codes.OK


def _row(standing: Standing) -> list[str | int | None]:
    from keyop.cli.table import short_time, size

    return [
        standing.id,
        standing.next_id,
        short_time(standing.next_ts) if standing.next_ts else None,
        standing.offset,
        standing.end_offset,
        size(standing.lag_bytes),
        str(standing.pid) if standing.pid is not None else None,
    ]


@command.command("set")
@click.argument("channel", type=ChannelName())
@click.argument("id", type=SubscriberId())
@click.argument("where", type=Moment(), metavar="WHERE")
@at_place
@click.option("--create", is_flag=True, help="Also for a subscriber that is not known yet.")
@as_json
def set_(place: Place, channel: str, id: str, where: str | int | datetime, create: bool, as_json: bool) -> int:
    """Have a subscriber go on elsewhere; it must not run.

    WHERE is earliest, latest, an offset in bytes, a time (2026-03-31T14:22 or with a zone), or how long ago (10m, 2h,
    7d). From a time on means: from the first message in the order of the channel that was published then or later. An
    offset inside of a message goes back to that message's beginning. Attempts at the message under way are forgotten.

    \b
    Examples:
      keyop offsets set orders billing earliest -d ./data      everything once more
      keyop offsets set orders billing latest -d ./data        nothing of what is there
      keyop offsets set orders billing 2026-03-31T14:22 -d ./data
    """
    from keyop.cli import warnings
    from keyop.maintenance.offsets import set_offset

    warnings.to_standard_error()
    _check(channel, id)
    moved = set_offset(place.settings(), channel, id, where, create=create)  # type: ignore[arg-type]
    if as_json:
        import json

        print(json.dumps({"channel": channel, "id": id, "old": moved.old, "new": moved.new, "asked": moved.asked}))
        return exit_codes.OK
    why = f" (no message begins at {moved.asked:,})" if moved.asked != moved.new else ""
    old = f"{moved.old:,}" if moved.old is not None else "new"
    print(f"{channel}/{id}: {old} -> {moved.new:,}{why}")
    return exit_codes.OK


@command.command("forget", short_help="Forget a subscriber for good.")
@click.argument("channel", type=ChannelName())
@click.argument("id", type=SubscriberId())
@at_place
@as_yes
def forget(place: Place, channel: str, id: str, yes: bool) -> int:
    """Forget a subscriber for good, as `unsubscribe` does: its offset, and what was put back for it. It must not run.

    A subscriber that nobody runs any more keeps files from being removed that it has not read. Who subscribes under the
    id later is new.

    \b
    Examples:
      keyop offsets forget orders old-report -d ./data
      keyop offsets forget orders old-report --yes -d ./data
    """
    from keyop.cli import warnings
    from keyop.maintenance import offsets

    warnings.to_standard_error()
    _check(channel, id)
    offsets.require_subscriber(place.directory(), channel, id)
    if not agreed(f"Forget where {id} stands in channel {channel}?", yes):
        _say("nothing was changed")
        return exit_codes.FAILED
    offsets.forget(place.settings(), channel, id)
    print(f"{channel}/{id}: forgotten")
    return exit_codes.OK


def _check(channel: str, id: str) -> None:
    from keyop.names import PEER_PREFIXES, check_channel, check_subscriber_id

    check_channel(channel)
    if not id.startswith(PEER_PREFIXES):
        check_subscriber_id(id)


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)
