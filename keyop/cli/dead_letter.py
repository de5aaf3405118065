"""``keyop dead-letter``."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyop.cli import exit_codes, letter_text
from keyop.cli.asking import agreed, as_yes
from keyop.cli.moment import Moment
from keyop.cli.names import ChannelName, SubscriberId
from keyop.cli.place import Place, as_json, at_place

if TYPE_CHECKING:
    from keyop.inspection.dead_letters import DeadLetters, Selection
    from keyop.maintenance.dead_letter_office import DeadLetterOffice, Outcome

_Function = TypeVar("_Function", bound=Callable[..., Any])


@click.group("dead-letter")
def command() -> None:
    """Look at messages that a subscriber gave up on, put them back for it, or discard them.

    A message whose retries are used up becomes a dead letter on CHANNEL.dead-letter, with its error. It is open until
    it is put back (the subscriber that failed gets the message again, others do not) or discarded. CHANNEL is the
    channel that the message was published to.

    \b
    Examples:
      keyop dead-letter list orders -d ./data
      keyop dead-letter show orders --id 0195fd0c-... -d ./data
      keyop dead-letter replay orders --error 'ConnectionError' --since 2h -d ./data
      keyop dead-letter discard orders --subscriber billing --yes -d ./data
    """


def _selecting(function: _Function) -> Callable[..., Any]:
    """Give a command the channel and the options that choose letters, as ``selection``."""

    @click.argument("channel", type=ChannelName())
    @click.option("--id", "ids", multiple=True, metavar="ID", help="Of the letter, or of its message; may be repeated.")
    @click.option("--subscriber", type=SubscriberId(), metavar="ID", help="Of this subscriber.")
    @click.option(
        "--since", type=Moment(), metavar="WHEN", help="Failed since 2026-03-31T14:22, or in the last 10m, 2h."
    )
    @click.option("--error", type=_Pattern(), metavar="REGEX", help="Whose error matches.")
    @functools.wraps(function)
    def selecting(
        place: Place,
        channel: str,
        ids: tuple[str, ...],
        subscriber: str | None,
        since: str | int | datetime | None,
        error: re.Pattern[str] | None,
        **others: Any,
    ) -> Any:
        from keyop.inspection.dead_letters import Selection
        from keyop.names import DEAD_LETTER_SUFFIX, check_publish_channel, is_dead_letter

        if since is not None and not isinstance(since, datetime):
            raise click.BadParameter(
                f"{since!r} is neither a time (2026-03-31T14:22) nor how long ago (10m)", param_hint="--since"
            )
        if is_dead_letter(channel):
            channel = channel.removesuffix(DEAD_LETTER_SUFFIX)
        check_publish_channel(channel)
        return function(place, channel=channel, selection=Selection(frozenset(ids), subscriber, since, error), **others)

    return selecting


class _Pattern(click.ParamType):  # type: ignore[type-arg]
    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


# ---- looking


@command.command("list", short_help="List the open ones of a channel.")
@at_place
@_selecting
@click.option("--all", "done", is_flag=True, help="Those that were put back or discarded, too.")
@as_json
def list_(place: Place, channel: str, selection: Selection, done: bool, as_json: bool) -> int:
    """List the open dead letters of a channel: id, subscriber, age, retries, the message's id, error.

    Reads files only. Exit code 0, also if there are none.

    \b
    Examples:
      keyop dead-letter list orders -d ./data
      keyop dead-letter list orders --subscriber billing --all --json -d ./data | jq -r '.[].error'
    """
    letters = _letters(place, channel)
    found = list(letters.select(selection._replace(done=done)))
    if as_json:
        print(letter_text.as_json(found))
    else:
        print(letter_text.as_table(found, done))
    if letters.unreadable:
        _say(f"{letters.unreadable} records of {channel}.dead-letter cannot be read as dead letters")
    return exit_codes.OK


@command.command("show", short_help="Show them in full, with the message.")
@at_place
@_selecting
@click.option("--all", "done", is_flag=True, help="Those that were put back or discarded, too.")
@as_json
def show(place: Place, channel: str, selection: Selection, done: bool, as_json: bool) -> int:
    """Show open dead letters in full: when, who, the whole error, and the message.

    With --json each is a line: the fields of `list`, and `original`, the message's envelope. Exit code 1 if --id names
    one that is not there, or if a message cannot be had any more.

    \b
    Examples:
      keyop dead-letter show orders --id 0195fd0c-... -d ./data
      keyop dead-letter show orders --json -d ./data | jq .original.payload
    """
    from keyop.inspection.dead_letters import OriginalLost, original_of

    directory = place.directory()
    seen: set[str | None] = set()
    lost = 0
    for letter in _letters(place, channel).select(selection._replace(done=done or bool(selection.ids))):
        seen |= {letter.id, letter.message_id}
        original, why = letter.original, ""
        try:
            original = original_of(directory, letter)
        except OriginalLost as error:
            why = str(error)
            lost += 1
        print(letter_text.json_line(letter, original) if as_json else letter_text.in_full(letter, original, why))
    if not seen and not selection.ids:
        others = "" if done else " that is open; --all shows what was put back or discarded"
        _say(f"channel {channel}: there is no such dead letter{others}")
    return _missing(selection, seen, channel) or (exit_codes.FAILED if lost else exit_codes.OK)


def _letters(place: Place, channel: str) -> DeadLetters:
    from keyop.inspection import survey
    from keyop.inspection.dead_letters import DeadLetters

    directory = place.directory()
    survey.require_channel(directory, channel)
    return DeadLetters(directory, channel)


def _missing(selection: Selection, seen: set[str | None], channel: str) -> int:
    missing = sorted(selection.ids - seen)
    for id in missing:
        _say(f"channel {channel} has no such dead letter: {id}")
    return exit_codes.FAILED if missing else exit_codes.OK


# ---- acting


@command.command("replay", short_help="Put them back, for the subscriber that failed.")
@at_place
@_selecting
@as_yes
@as_json
def replay(place: Place, channel: str, selection: Selection, yes: bool, as_json: bool) -> int:
    """Put the messages of open dead letters back, each for the subscriber that failed at it.

    The subscriber gets the message again, with new retries, whether it runs now or later; others do not. What is put
    back is done: to give the command again does nothing, also after it was killed. Asks before it puts back more than
    --id names. --subscriber also says for whom letters are that name nobody (those of the Go program).

    Exit code 1 if a message could not be put back (its text is gone, its subscriber is): the others are.

    \b
    Examples:
      keyop dead-letter replay orders --id 0195fd0c-... -d ./data
      keyop dead-letter replay orders --subscriber billing --error 'Timeout' --yes -d ./data
    """
    return _act(place, channel, selection, yes, as_json, "replay", "put back", lambda office: office.replay)


@command.command("discard", short_help="Mark them as seen to.")
@at_place
@_selecting
@as_yes
@as_json
def discard(place: Place, channel: str, selection: Selection, yes: bool, as_json: bool) -> int:
    """Mark open dead letters as seen to: nobody gets their messages again, and they are listed no more.

    They stay in the channel until its files are removed, by age or number (`list --all` shows them). Asks before it
    discards more than --id names.

    \b
    Examples:
      keyop dead-letter discard orders --id 0195fd0c-... -d ./data
      keyop dead-letter discard orders --since 2026-03-31 --error 'no such customer' -d ./data
    """
    return _act(place, channel, selection, yes, as_json, "discard", "discarded", lambda office: office.discard)


def _act(
    place: Place,
    channel: str,
    selection: Selection,
    yes: bool,
    as_json: bool,
    verb: str,
    participle: str,
    method: Callable[[DeadLetterOffice], Callable[..., Outcome]],
) -> int:
    from keyop.cli import warnings
    from keyop.cli.progress import Progress
    from keyop.maintenance.dead_letter_office import DeadLetterOffice

    warnings.to_standard_error()
    letters = _letters(place, channel)
    wanted = {letter.id: letter.message_id for letter in letters.select(selection)}
    known = {id for letter in letters.select(selection._replace(done=True)) for id in (letter.id, letter.message_id)}
    code = _missing(selection, known, channel)
    if not wanted:
        _report(0, [], as_json, participle, "; there is no open one among them")
        return code
    if not selection.ids and not agreed(f"{verb} {len(wanted)} dead letters of channel {channel}?", yes):
        _say("nothing was changed")
        return exit_codes.FAILED
    with DeadLetterOffice(place.settings(), channel) as office, Progress(verb) as progress:
        outcome = method(office)(selection, lambda done: progress.show(done, len(wanted), f"{done:,} letters"))
    _report(outcome.done, [(failure.letter.id, failure.why) for failure in outcome.failures], as_json, participle)
    return exit_codes.FAILED if outcome.failures else code


def _report(done: int, failures: list[tuple[str, str]], as_json: bool, participle: str, note: str = "") -> None:
    if as_json:
        import json

        print(json.dumps({"done": done, "failed": [{"id": id, "why": why} for id, why in failures]}))
    else:
        stay = f", {len(failures)} stay open" if failures else ""
        print(f"{done:,} {participle}{stay}{note}")
    for id, why in failures:
        _say(f"{id}: {why}")


def _say(text: str) -> None:
    print(f"keyop: {text}", file=sys.stderr)
