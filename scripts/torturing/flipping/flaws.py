"""Controls: code that does something wrong on purpose, so that one sees the rig find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from keyop.storage import offsets
from keyop.writer.log import Log


class Flaw(NamedTuple):
    """What is done wrong, while the context lasts."""

    made: Callable[[], AbstractContextManager[None]]
    costs: str
    """What kind of violation has to be found."""


@contextmanager
def _unchecked_offsets() -> Iterator[None]:
    """Digits are believed, whatever the blanks behind them say."""
    parse = offsets._parse_ours

    def believe(data: bytes) -> offsets.ParsedOffset:
        digits = data[:20]
        believable = digits.isdigit() and int(digits) <= offsets.MAX_OFFSET
        return parse(offsets.format_offset(int(digits)) if believable else data)

    offsets._parse_ours = believe
    try:
        yield
    finally:
        offsets._parse_ours = parse


@contextmanager
def _silent_writer() -> Iterator[None]:
    """The writer's log has no warnings."""
    warning = Log.warning
    Log.warning = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Log.warning = warning  # type: ignore[method-assign]


FLAWS = {
    "unchecked offsets": Flaw(_unchecked_offsets, "skipped"),
    "silent writer": Flaw(_silent_writer, "silent"),
}
