"""``keyop publish``."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from keyop.cli import exit_codes
from keyop.cli.moment import Seconds
from keyop.cli.names import ChannelName
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import counted
from keyop.errors import PublishTimeout

if TYPE_CHECKING:
    from keyop.cli.bulk import BadInputLine, Bulk

_DEFAULT_TYPE = "application/json"


@click.command("publish")
@click.argument("channel", type=ChannelName(reserved=False))
@click.argument("json_text", metavar="[JSON]", required=False)
@at_place
@click.option("-t", "--type", "payload_type", default=_DEFAULT_TYPE, show_default=True, help="The payload's type.")
@click.option(
    "--correlation-id",
    envvar="KEYOP_CORRELATION_ID",
    show_envvar=True,
    help="What ties the message to its cause; commands that `keyop consume` runs have it set.",
)
@click.option("--service-name", help="Which service publishes.")
@click.option("--sync/--no-sync", default=None, help="Wait for the device, or not (only beside a periodic writer).")
@click.option("--timeout", type=Seconds(), help="How long to wait for the commit, for each batch.")
@click.option("--raw", is_flag=True, help="Input is plain text, not JSON: it is published as a JSON string.")
@click.option("--skip-bad", is_flag=True, help="Pass over lines of input that are no messages, and go on.")
@as_json
def command(
    place: Place,
    channel: str,
    json_text: str | None,
    payload_type: str,
    correlation_id: str | None,
    service_name: str | None,
    sync: bool | None,
    timeout: float | None,
    raw: bool,
    skip_bad: bool,
    as_json: bool,
) -> int:
    """Publish a message and print its id; without JSON, a line of standard input is a message.

    Lines are published in batches as they come, blank ones are passed over. A line that is no JSON ends it with its
    number; what came before it is published then. A JSON that begins with a minus goes behind `--`.

    \b
    Examples:
      keyop publish alerts '{"message": "hot"}' -t com.example.alert.v1 -d ./data
      keyop publish numbers -d ./data -- -5
      seq 100000 | keyop publish numbers -d ./data
      journalctl -f -o json | keyop publish logs -d ./data --skip-bad
      tail -F app.log | keyop publish lines -d ./data --raw
    """
    from keyop.cli import warnings
    from keyop.cli.payload import parse_json, parse_text
    from keyop.messenger import Messenger
    from keyop.names import check_publish_channel

    warnings.to_standard_error()
    check_publish_channel(channel)
    parse = parse_text if raw else parse_json
    options = {
        "payload_type": payload_type,
        "correlation_id": correlation_id,
        "service_name": service_name,
        "sync": sync,
        "timeout": timeout,
    }
    if json_text is not None and json_text != "-":
        payload = parse(os.fsencode(json_text))
        with Messenger(place.settings()) as messenger:
            message_id = messenger.publish(channel, payload, **options)  # type: ignore[arg-type]
        print(f'{{"id": "{message_id}", "channel": "{channel}"}}' if as_json else message_id)
        return exit_codes.OK
    from keyop.cli.bulk import Bulk

    settings = place.settings()
    with Messenger(settings) as messenger:
        bulk = Bulk(
            partial(messenger.publish_batch, channel, **options),  # type: ignore[arg-type]
            parse,
            _say_skipped if skip_bad else None,
        )
        code = _publish_input(bulk, settings.storage.max_message_bytes)
    if as_json:
        print(f'{{"channel": "{channel}", "published": {bulk.published}, "skipped": {bulk.skipped}}}')
    return code


def _publish_input(bulk: Bulk, max_line_bytes: int) -> int:
    from keyop.cli.bulk import BadInputLine
    from keyop.cli.input_lines import InputLines
    from keyop.cli.progress import Progress

    fd = sys.stdin.fileno()
    typed = sys.stdin.isatty()
    if typed:
        _say("one message a line; Ctrl-D ends")
    lines = InputLines(fd, max_line_bytes)
    total = _length(fd)
    ending, code = "", exit_codes.OK
    try:
        with Progress("publishing", wanted=not typed) as progress:
            for batch in lines:
                bulk.add(batch)
                progress.show(lines.bytes_read, total, f"{bulk.published:,} messages")
    except BadInputLine as bad:
        _say(f"{bad}; what came before it is published, nothing from it on: mend it, or use --skip-bad")
        code = exit_codes.FAILED
    except PublishTimeout as error:
        _say(str(error))
        ending, code = " for sure", exit_codes.TEMPORARY
    except KeyboardInterrupt:
        ending, code = " before the interruption", exit_codes.INTERRUPTED
    skipped = f", {bulk.skipped:,} lines skipped" if bulk.skipped else ""
    _say(f"{counted(bulk.published, 'message')} published{ending}{skipped}")
    return code


def _say_skipped(bad: BadInputLine) -> None:
    _say(f"skipped: {bad}")


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)


def _length(fd: int) -> int:
    """What there is to read, for a progress bar; 0 if it is no file."""
    status = os.fstat(fd)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
