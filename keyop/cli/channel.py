"""``keyop channel``."""

from __future__ import annotations

import sys

import click

from keyop.cli import exit_codes
from keyop.cli.asking import agreed, as_yes
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place


@click.group("channel")
def command() -> None:
    """Delete a channel.

    `keyop channels` lists them; a channel is made by whoever publishes or subscribes to it first.

    \b
    Examples:
      keyop channel delete test-orders -d ./data
    """


@command.command("delete", short_help="Delete its messages and offsets.")
@click.argument("channel", type=ChannelName())
@at_place
@click.option("--force", is_flag=True, help="Also under running subscribers, which then begin anew.")
@as_yes
@as_json
def delete(place: Place, channel: str, force: bool, yes: bool, as_json: bool) -> int:
    """Delete a channel: its messages, read or not, and the offsets of all its subscribers and peers.

    Who publishes to it afterwards makes a new channel, which begins at 0. Refused while a subscriber runs, and names
    it; with --force the subscriber logs an error and begins anew with what is published since. Hub and client have to
    be stopped if they exchange the channel. Its dead letters are a channel of their own, CHANNEL.dead-letter, and stay.

    A crash in the middle leaves the channel as it was, or gone.

    \b
    Examples:
      keyop channel delete test-orders -d ./data
      keyop channel delete orders.dead-letter --yes -d ./data
    """
    from keyop.cli import warnings
    from keyop.cli.table import size
    from keyop.maintenance.channel_deletion import delete_channel, extent
    from keyop.names import check_channel, dead_letter_channel

    warnings.to_standard_error()
    check_channel(channel)
    directory = place.directory()
    there = extent(directory, channel)
    subscribers = f" and where {', '.join(there.subscribers)} stand" if there.subscribers else ""
    if not agreed(f"Delete channel {channel}, {size(there.bytes)}{subscribers}?", yes):
        _say("nothing was changed")
        return exit_codes.FAILED
    gone = delete_channel(place.settings(), channel, force=force)
    if as_json:
        import json

        print(json.dumps({"channel": channel, **gone._asdict()}))
        return exit_codes.OK
    print(f"{channel}: deleted, {size(gone.bytes)} in {gone.segments} files, {len(gone.subscribers)} offsets")
    if directory.channel(dead_letter_channel(channel)).is_dir():
        _say(f"its dead letters stay: {dead_letter_channel(channel)}")
    return exit_codes.OK


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)
