"""``keyop tail``."""

from __future__ import annotations

import select
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from keyop.cli.moment import FORMS, Moment
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import short_time

if TYPE_CHECKING:
    from keyop.inspection.following import Follower, Record

_LAST = 10


@click.command("tail")
@click.argument("channel", type=ChannelName())
@at_place
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes; a channel that is not there is waited for.")
@click.option("--from", "start", type=Moment(), metavar="WHERE", help=f"Where to begin: {FORMS}.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    help=f"With --from: stop after so many messages. Without: begin with so many of the last ones.  [default: {_LAST}]",
)
@as_json
def command(
    place: Place, channel: str, follow: bool, start: str | int | datetime | None, lines: int | None, as_json: bool
) -> None:
    """Print the messages of a channel. Reads files only, and keeps no position.

    Works without a writer, from another container, and on a copy of a directory. With --json a line is the envelope
    as it is stored.

    \b
    Examples:
      keyop tail orders -d ./data                    the last ten
      keyop tail orders -d ./data -f                 the last ten, and what comes
      keyop tail orders -d ./data --from 2h --json   of the last two hours
      keyop tail orders -d ./data -f --from latest -n 1 --json | jq .payload
    """
    from keyop.cli import warnings
    from keyop.inspection import lookback, survey
    from keyop.inspection.following import follow as follow_channel
    from keyop.names import check_channel

    warnings.to_standard_error()
    directory = place.directory()
    check_channel(channel)
    if not follow:
        survey.require_channel(directory, channel)
    at_most = None if start is None else lines
    if start is None:
        start = lookback.offset_of_last(directory.channel(channel), _LAST if lines is None else lines)
    with follow_channel(directory.path, channel, start, wait=follow) as follower:  # type: ignore[arg-type]
        _print(follower, as_json, follow, at_most)


def _print(follower: Follower, as_json: bool, follow: bool, at_most: int | None) -> None:
    spell = _raw if as_json else _readable
    out = sys.stdout.buffer
    printed = 0
    while printed != at_most:
        record = follower.take()
        if record is not None:
            out.write(spell(record) + b"\n")
            printed += 1
            continue
        out.flush()
        if not follow or _nobody_reads() or not follower.wait():
            break
    out.flush()


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has gone: a quiet channel would never tell by a failing write."""
    looker = select.poll()
    looker.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looker.poll(0))


def _raw(record: Record) -> bytes:
    return record.line


def _readable(record: Record) -> bytes:
    from keyop.messages.json_text import encode_payload

    envelope = record.envelope
    words = [short_time(envelope.ts), envelope.service_name or envelope.origin, envelope.payload_type]
    text = "  ".join(filter(None, words)) + "  " + encode_payload(envelope.payload).decode()
    if not text.isprintable():
        # What somebody published must not steer a terminal.
        text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text.encode()
