"""``keyop consume``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from keyop.cli import exit_codes
from keyop.cli.moment import FORMS, Moment
from keyop.cli.names import ChannelName, SubscriberId
from keyop.cli.place import Place, at_place
from keyop.cli.running import forget_standard_output
from keyop.errors import RetryLater

if TYPE_CHECKING:
    from keyop.messages.message import Message
    from keyop.messenger import Messenger

_LOOK_S = 0.02

Handle = Callable[["Message[Any]"], None]


@click.command("consume")
@click.argument("channel", type=ChannelName())
@at_place
@click.option("--id", "id", type=SubscriberId(), required=True, help="The subscriber: it goes on where it stopped.")
@click.option(
    "--exec", "shell_command", metavar="CMD", help="A shell command to run for each message, which it reads from stdin."
)
@click.option("--payload", "only_payload", is_flag=True, help="Hand over the payload alone, not the envelope.")
@click.option(
    "--start", type=Moment(), default="latest", show_default=True, metavar="WHERE", help=f"For a new id: {FORMS}."
)
@click.option("--max-retries", type=click.IntRange(min=0), help="Attempts after the first, before the dead letter.")
@click.option("--count", type=click.IntRange(min=1), help="Leave after so many messages: handled, or dead letters.")
@click.option("--exactly-once", is_flag=True, help="Move the offset by synced transactions of the writer.")
def command(
    place: Place,
    channel: str,
    id: str,
    shell_command: str | None,
    only_payload: bool,
    start: str | int | datetime,
    max_retries: int | None,
    count: int | None,
    exactly_once: bool,
) -> int:
    """Handle the messages of a channel durably: print each, or run a command for each.

    CHANNEL may be a pattern in quotes: all channels that it fits, also those that come.

    Without --exec a message is a line of JSON on standard output, and counts as handled when it has been flushed.
    With it CMD reads the message from its standard input. Its exit code: 0 success; 75 not now, the same message comes
    again without using up a retry; any other is a failure, tried again and at last put into CHANNEL.dead-letter with
    the end of what CMD wrote to standard error. CMD finds KEYOP_ID, KEYOP_TS, KEYOP_CHANNEL, KEYOP_ORIGIN, KEYOP_TYPE,
    KEYOP_CORRELATION_ID, KEYOP_SERVICE_NAME, KEYOP_OFFSET, KEYOP_ATTEMPT and KEYOP_DATA_DIR in its environment.

    SIGINT and SIGTERM end it after the message under way (10 s at most).

    \b
    Examples:
      keyop consume alerts --id mailer --exec 'mail -s "$KEYOP_TYPE" ops' -d ./data
      keyop consume orders --id export --payload --start earliest -d ./data >> orders.jsonl
      keyop consume jobs --id once --count 1 --exec ./run-job -d ./data
      keyop consume 'sensors.*' --id dash --exec ./show -d ./data
    """
    from keyop.cli import warnings
    from keyop.cli.handler_command import HandlerCommand
    from keyop.cli.message_json import message_json, payload_json
    from keyop.messenger import Messenger

    warnings.to_standard_error()
    settings = place.settings()
    spell = payload_json if only_payload else message_json
    external = HandlerCommand(shell_command, settings.storage.data_dir, spell) if shell_command else None
    retries = settings.subscribers.max_retries if max_retries is None else max_retries
    ending = _Ending(external or _printer(spell), count, retries)
    ending.catch_signals()
    with Messenger(settings) as messenger:
        messenger.subscribe(
            channel,
            id,
            ending.handle,
            start=start,  # type: ignore[arg-type]
            max_retries=max_retries,
            exactly_once=exactly_once,
        )
        code = ending.wait(lambda message: _is_past(messenger, message))
    if external is not None:
        external.terminate()
    return code


class _Ending:
    """When to leave: a signal, enough messages, or nobody reads what is printed."""

    def __init__(self, handle: Handle, count: int | None, max_retries: int) -> None:
        self._handle = handle
        self._left = count
        self._max_retries = max_retries
        # Its `put` may interrupt itself, unlike that of an Event: a signal handler uses it.
        # None: the last message has failed for good, and is on its way to the dead letters.
        self._reasons: SimpleQueue[int | None] = SimpleQueue()
        self._failed: Message[Any] | None = None

    def handle(self, message: Message[Any]) -> None:
        """The handler of the subscription."""
        if self._left == 0:
            self._reasons.put(exit_codes.OK)
            raise RetryLater  # for the next process under this id
        try:
            self._handle(message)
        except BrokenPipeError:
            self._left = 0
            forget_standard_output()
            self._reasons.put(exit_codes.OK)
            raise RetryLater from None
        except RetryLater:
            raise
        except Exception:
            if message.attempt > self._max_retries:
                self._failed = message
                self._count(None)  # a dead letter is done with, too
            raise
        self._count(exit_codes.OK)

    def _count(self, reason: int | None) -> None:
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self._reasons.put(reason)

    def catch_signals(self) -> None:
        """Before the first message: one that is handled when the signal comes is finished first."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reasons.put(exit_codes.OK))

    def wait(self, is_past: Callable[[Message[Any]], bool]) -> int:
        """Block until there is a reason to leave; the exit code. ``is_past``: whether a message is done with."""
        code = self._reasons.get()
        while code is None:
            if self._failed is not None and is_past(self._failed):
                return exit_codes.OK
            try:
                code = self._reasons.get(timeout=_LOOK_S)
            except Empty:
                continue
        return code


def _is_past(messenger: Messenger, message: Message[Any]) -> bool:
    subscribers = messenger.stats().subscribers
    return any(each.channel == message.channel and each.offset > message.offset for each in subscribers)


def _printer(spell: Callable[[Message[Any]], bytes]) -> Handle:
    out = sys.stdout.buffer

    def print_message(message: Message[Any]) -> None:
        out.write(spell(message) + b"\n")
        out.flush()

    return print_message
