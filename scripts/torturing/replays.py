"""The checker's part about dead letters that were put back: once each, marked, and handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torturing.account import Account, Name
from torturing.orders import PROVOKED

Found = tuple[str, str, list[str]]
"""Kind, text, and what it is about."""


def check_put_back(account: Account) -> Iterator[Found]:
    """Of a directory in which everything was handled, and every letter of ``plain`` put back."""
    letters = {letter.id: letter.of for letter in account.letters if letter.by == "plain" and PROVOKED in letter.error}
    yield from _check_marks(account, letters)
    replays = account.channels.get("in.replay")
    records = replays.records if replays is not None else []
    copies = Counter(str(record.envelope.get("replay")) for record in records)
    doubled = [id for id, count in copies.items() if count > 1]
    if doubled:
        yield "doubled", "dead letters that were put back more than once", doubled
    if account.first("in.replay") == 0:
        missing = [str(of) for id, of in letters.items() if id not in copies]
        if missing:
            yield "half", "dead letters that are marked, and were not put back", missing
    strange = [id for id in copies if id not in letters]
    if strange:
        yield "half", "what was put back has no dead letter", strange
    handled = {Name(*note["of"]) for note in account.notes if note["what"] == "replayed"}
    unhandled = [str(of) for of in letters.values() if of not in handled]
    if unhandled:
        yield "unhandled", f"{len(unhandled)} messages that were put back", unhandled


def _check_marks(account: Account, letters: dict[str, Name]) -> Iterator[Found]:
    marks = Counter(account.marks)
    twice = [id for id, count in marks.items() if count > 1]
    if twice:
        yield "doubled", "dead letters that are marked more than once", twice
    open_ones = [str(of) for id, of in letters.items() if id not in marks]
    if open_ones:
        yield "lost", "dead letters that are open, though all were put back", open_ones
    told = sum(note["done"] for note in account.notes if note["what"] == "put back")
    if len(account.marks) < told:
        yield "lost", f"{told} dead letters were put back, and {len(account.marks)} are marked", []
