"""Text that is cut to fit into cells of a terminal, and that cannot do anything to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_WIDE = ("W", "F")


def clean(text: str) -> str:
    """The text in one line, with what a terminal would obey or what has no width as a middle dot."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    return "·" if not character.isprintable() or unicodedata.combining(character) else character


def width(text: str) -> int:
    """How many cells a cleaned text takes."""
    return len(text) if text.isascii() else sum(_width(character) for character in text)


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """The text in exactly so many cells: filled with blanks, or cut, with an ellipsis for what is missing."""
    taken = width(text)
    if taken > cells:
        text = _cut(text, cells - 1) + "…" if cells else ""
        taken = width(text)
    blanks = " " * (cells - taken)
    return blanks + text if right else text + blanks


def _cut(text: str, cells: int) -> str:
    if text.isascii():
        return text[:cells]
    taken = 0
    for place, character in enumerate(text):
        taken += _width(character)
        if taken > cells:
            return text[:place]
    return text


def wrap(text: str, cells: int) -> Iterator[str]:
    """Lines of at most so many cells; newlines of the text are kept."""
    for line in text.expandtabs(4).split("\n"):
        rest = clean(line)
        while width(rest) > cells > 1:
            part = _cut(rest, cells)
            yield part
            rest = rest[len(part) :]
        yield rest
