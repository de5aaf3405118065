"""The terminal: taken, drawn on, read from, and given back as it was."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import select
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from keyop.errors import KeyopError
from keyop.top.listing import Line
from keyop.top.table import Style

# Where the system does not know the terminal (a new one, over ssh), it most probably does what this one does.
_SUBSTITUTES = ("xterm-256color", "xterm", "vt100")
_ESCAPE_DELAY_MS = 50
_KEYS = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "enter",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    curses.KEY_RESIZE: "resize",
}
_CHARACTERS = {"\n": "enter", "\r": "enter", "\t": "tab", "\x1b": "escape", "\x7f": "backspace", "\b": "backspace"}
_COLOURS = {Style.GOOD: curses.COLOR_GREEN, Style.WARN: curses.COLOR_YELLOW, Style.BAD: curses.COLOR_RED}


class TerminalError(KeyopError):
    """There is no terminal to draw on."""


class TerminalGone(Exception):
    """Nobody types there any more."""


class Terminal:
    """The screen, from `with` to its end. Whatever ends the block, the terminal is as it was."""

    def __init__(self) -> None:
        """Raises `TerminalError` if standard input or output is no terminal, or of an unknown kind."""
        if not (os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())):
            raise TerminalError(
                "keyop top draws on a terminal, and this is none: keyop top --once prints tables, "
                "keyop top --once --json prints JSON"
            )
        locale.setlocale(locale.LC_ALL, "")
        self.ascii_only = locale.nl_langinfo(locale.CODESET).upper() not in ("UTF-8", "UTF8")
        """Whether the terminal takes nothing else."""
        _know_the_terminal()
        self._attributes: dict[Style, int] = {}
        self._silent = 0

    def __enter__(self) -> Self:
        curses.set_escdelay(_ESCAPE_DELAY_MS)
        self._window = curses.initscr()
        try:
            curses.noecho()
            curses.cbreak()
            self._window.keypad(True)
            self._attributes = _attributes()
            with contextlib.suppress(curses.error):
                curses.curs_set(0)
        except BaseException:
            curses.endwin()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        self._window.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()

    @property
    def size(self) -> tuple[int, int]:
        """Cells in a line, and lines."""
        height, cells = self._window.getmaxyx()
        return cells, height

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines. Only what differs from what is there goes to the terminal."""
        cells, height = self.size
        self._window.erase()
        for row, line in enumerate(lines[:height]):
            column = 0
            for text, style in line:
                room = cells - column
                if room <= 0:
                    break
                if self.ascii_only and not text.isascii():
                    text = text.replace("…", "~").encode("ascii", "replace").decode()
                # The cursor cannot stand behind the last cell of the last line: that is an error, and it is drawn.
                with contextlib.suppress(curses.error):
                    self._window.addnstr(row, column, text, room, self._attributes[style])
                column = self._window.getyx()[1] if self._window.getyx()[0] == row else cells
        self._window.refresh()

    def key(self, patience_s: float) -> str | None:
        """The name of the next key, ``resize`` if the window has another size; None if there is none in time.

        Raises `TerminalGone`.
        """
        began_s = time.monotonic()
        self._window.timeout(max(0, int(patience_s * 1000)))
        try:
            found = self._window.get_wch()
        except curses.error:
            self._see_whether_it_is_there(time.monotonic() - began_s < patience_s / 2)
            return None
        self._silent = 0
        if isinstance(found, int):
            return _KEYS.get(found, "")
        return _CHARACTERS.get(found, found)

    def _see_whether_it_is_there(self, too_soon: bool) -> None:
        """Where the terminal is gone, a wait for its keys ends at once, and the next one, too."""
        self._silent = self._silent + 1 if too_soon else 0
        if self._silent >= 3 and select.select([sys.stdin], [], [], 0)[0]:
            raise TerminalGone


def _know_the_terminal() -> None:
    named = os.environ.get("TERM", "")
    for name in (named, *_SUBSTITUTES):
        try:
            curses.setupterm(name or "dumb", sys.stdout.fileno())
        except curses.error:
            continue
        if curses.tigetstr("cup"):
            os.environ["TERM"] = name
            return
        if name == named:
            break
    raise TerminalError(
        f"TERM is {named!r}: this terminal cannot be drawn on; TERM=xterm-256color may do, or use --once"
    )


def _attributes() -> dict[Style, int]:
    attributes = {
        Style.PLAIN: curses.A_NORMAL,
        Style.DIM: curses.A_DIM,
        Style.BOLD: curses.A_BOLD,
        Style.BAR: curses.A_REVERSE,
        Style.GOOD: curses.A_NORMAL,
        Style.WARN: curses.A_BOLD,
        Style.BAD: curses.A_BOLD,
    }
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return attributes
    curses.start_color()
    background = -1
    try:
        curses.use_default_colors()
    except curses.error:
        background = curses.COLOR_BLACK
    for number, (style, colour) in enumerate(_COLOURS.items(), 1):
        curses.init_pair(number, colour, background)
        attributes[style] |= curses.color_pair(number)
    return attributes
