"""Dead letters as people and scripts read them."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keyop.cli.table import age, table

if TYPE_CHECKING:
    from keyop.inspection.dead_letters import DeadLetter

_ERROR_CHARACTERS = 60
_MOST_ERRORS = 5
_HEADINGS = ("ID", "SUBSCRIBER", "STATE", "MESSAGE", "ERROR", "RETRIES", "AGE")


def as_json(letters: list[DeadLetter]) -> str:
    """A list of all fields, but for the originals."""
    return json.dumps([_as_dict(letter) for letter in letters])


def as_table(letters: list[DeadLetter], done: bool) -> str:
    """A line for each, and how many there are; ``done``: those that were seen to are among them."""
    rows = [_row(letter) for letter in letters]
    return (table(_HEADINGS, rows, left=5) + "\n" if rows else "") + _counts(letters, done)


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    fields = asdict(letter)
    del fields["original"], fields["stands_at"]
    return fields


def json_line(letter: DeadLetter, original: str | None) -> str:
    """All fields of one, and its original as it was published."""
    text = json.dumps(_as_dict(letter))
    return f'{text[:-1]}, "original": {original or "null"}}}'


def _row(letter: DeadLetter) -> list[str | int | None]:
    return [
        letter.id,
        letter.subscriber,
        letter.state,
        letter.message_id,
        _short_error(letter),
        letter.retries,
        _age(letter),
    ]


def _age(letter: DeadLetter) -> str | None:
    return age(max(0.0, time.time() - letter.failed_ns / 1e9)) if letter.failed_ns else None


def _counts(letters: list[DeadLetter], done: bool) -> str:
    states = Counter(letter.state for letter in letters)
    text = f"{states.pop('open', 0):,} open"
    if done:
        text += "".join(f", {count:,} {state}" for state, count in sorted(states.items()))
    by_subscriber = Counter(letter.subscriber or "nobody named" for letter in letters if letter.state == "open")
    if len(by_subscriber) > 1:
        text += ": " + ", ".join(f"{count:,} {subscriber}" for subscriber, count in by_subscriber.most_common())
    by_error = Counter(_short_error(letter) for letter in letters if letter.state == "open")
    if 1 < by_error.total() > len(by_error):
        text += "".join(f"\n{count:>8,} {error}" for error, count in by_error.most_common(_MOST_ERRORS))
        text += f"\n         and {len(by_error) - _MOST_ERRORS:,} other errors" if len(by_error) > _MOST_ERRORS else ""
    return text


def _short_error(letter: DeadLetter) -> str:
    error = " ".join(letter.error.split())
    return _printable(error if len(error) <= _ERROR_CHARACTERS else error[: _ERROR_CHARACTERS - 3] + "...")


def in_full(letter: DeadLetter, original: str | None, why: str) -> str:
    """One with its whole error and its original; ``why`` that is not whole."""
    lines = [
        f"Dead letter:  {letter.id} ({letter.state})",
        f"Failed:       {letter.failed_at}, subscriber {letter.subscriber or 'not named'}, {letter.retries} retries",
        f"Message:      {letter.message_id or '-'}, published {letter.message_ts or '-'}, {letter.payload_type or '-'}",
    ]
    if letter.replay_of:
        lines.append(f"Put back:     once before, because of {letter.replay_of}")
    lines.append("Error:")
    lines += [f"  {_printable(line)}" for line in letter.error.splitlines() or ["-"]]
    lines.append("Original:" + (f"     {why}" if why else ""))
    if original is not None:
        lines += [f"  {line}" for line in json.dumps(json.loads(original), indent=2).splitlines()]
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    """What somebody published must not steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
