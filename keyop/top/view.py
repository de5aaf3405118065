"""What is on the screen and what a key does to it. Knows no terminal: keys are names, lines are text with a style."""

from __future__ import annotations

import time
from collections.abc import Callable

from keyop.live import figures
from keyop.live.messages import MessageView
from keyop.live.snapshot import Snapshot, SubscriberView
from keyop.names import dead_letter_channel, is_dead_letter
from keyop.top.cells import clean, fit
from keyop.top.listing import Line, Listing
from keyop.top.reading import Messages, Reading
from keyop.top.table import Style
from keyop.top.tables import TABLES

HELP = """\
1 2 3 4   channels, subscribers, peers, processes; Tab goes on to the next
up down   select a row: also j and k, PgUp, PgDn, Home, End
Enter     the last messages of the row's channel, then one message in full
d         the last dead letters of the row's channel, or subscriber
s S       sort by the next column, by the one before; r the other way round
/         show only rows that hold a text; Esc shows all again
p         hold the picture, go on
q         back; at a table: leave. Esc goes back, too. Ctrl-Z suspends

BYTES/S, SIZE, LAG: units of 1,024 bytes. MSGS with ~ is an estimate.
idle   has handled all     busy      handles, or is about to
stuck  has not moved for ten seconds, and something is there
away   no process here     retrying  its message failed before
TRIP is the last batch there and back, with the other host's disk.
BEHIND is what the peer lacks, WAITS what came and is not on the disk."""

_FOOT = "q leave  ? help  / filter  s sort  r reverse  Enter messages  d dead letters"
_FOOT_BACK = "q back  up/down  Enter open"

Read = Callable[[str], list[MessageView]]


class View:
    """Everything that somebody sees. `read` gives the last messages of a channel, or raises `OSError`."""

    def __init__(self, read: Read, *, ascii_only: bool = False) -> None:
        self._read = read
        self._listings = [Listing(table, ascii_only=ascii_only) for table in TABLES]
        self._number = 0
        self._pages: list[Messages | Reading] = []
        self._typing = False
        self._helping = False
        self._held = False
        self._snapshot: Snapshot | None = None

    @property
    def _listing(self) -> Listing:
        return self._listings[self._number]

    def show(self, number: int) -> None:
        """Switch to a table, 0 to 3."""
        self._number = number % len(self._listings)
        self._pages.clear()
        self._refresh()

    def take(self, snapshot: Snapshot) -> None:
        """Another look."""
        if not self._held or self._snapshot is None:
            self._snapshot = snapshot
            self._refresh()

    def _refresh(self) -> None:
        if self._snapshot is not None:
            self._listing.take(self._snapshot)

    # ---- keys

    def press(self, key: str) -> bool:
        """Do what a key stands for; False to leave."""
        if self._helping:
            self._helping = False
            return True
        if self._typing:
            self._type(key)
            return True
        if key == "?":
            self._helping = True
        elif key == "p":
            self._held = not self._held
        elif key == "tab":
            self.show(self._number + 1)
        elif key in ("1", "2", "3", "4"):
            self.show(int(key) - 1)
        elif self._pages:
            self._press_on_page(key)
        elif key == "q":
            return False
        else:
            self._press_on_table(key)
        return True

    def _press_on_page(self, key: str) -> None:
        page = self._pages[-1]
        if key in ("q", "escape", "left", "backspace"):
            self._pages.pop()
        elif key == "enter" and isinstance(page, Messages) and page.selected is not None:
            self._pages.append(Reading(page.channel, page.selected))
        elif key == "d" and isinstance(page, Messages):
            self._open(page.channel, dead=True)
        elif key in _MOVES:
            page.move(_MOVES[key])
        elif key in _PAGES:
            page.page(_PAGES[key])

    def _press_on_table(self, key: str) -> None:
        listing = self._listing
        if key == "/":
            self._typing = True
        elif key in ("s", "S"):
            listing.sort_by_next(1 if key == "s" else -1)
        elif key == "r":
            listing.turn_round()
        elif key == "escape":
            listing.filter = ""
        elif key in ("enter", "d"):
            row = listing.selected
            channel = None if row is None else listing.table.channel(row)
            if channel is not None:
                self._open(channel, dead=key == "d", subscriber=row.id if isinstance(row, SubscriberView) else None)
        elif key == "home":
            listing.first()
        elif key == "end":
            listing.last()
        elif key in _MOVES:
            listing.move(_MOVES[key])
        elif key in _PAGES:
            listing.page(_PAGES[key])
        self._refresh()

    def _type(self, key: str) -> None:
        listing = self._listing
        if key == "escape":
            listing.filter = ""
            self._typing = False
        elif key == "enter":
            self._typing = False
        elif key == "backspace":
            listing.filter = listing.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            listing.filter += key
        self._refresh()

    def _open(self, channel: str, *, dead: bool, subscriber: str | None = None) -> None:
        """The last messages; the dead letters of one subscriber, where it is named: letters may name none."""
        if dead and not is_dead_letter(channel):
            channel = dead_letter_channel(channel)
        try:
            found = self._read(channel)
            if dead and subscriber is not None:
                found = [message for message in found if message.subscriber in (None, subscriber)]
            page = Messages(channel, found)
        except OSError as error:
            page = Messages(channel, [], f"{error.filename or channel}: {error.strerror}")
        self._pages.append(page)

    # ---- drawing

    def lines(self, cells: int, height: int) -> list[Line]:
        """The whole screen, at most so many lines."""
        snapshot = self._snapshot
        if snapshot is None:
            return []
        top = [self._state_line(snapshot, cells), self._tabs(snapshot, cells)]
        room = max(1, height - len(top) - 1)
        if self._helping:
            body: list[Line] = [[(fit(text, cells), Style.PLAIN)] for text in HELP.splitlines()]
        elif self._pages:
            body = self._pages[-1].lines(cells, room)
        else:
            # A held picture shows ages as of its look.
            now_unix_s = snapshot.taken_unix_s if self._held else time.time()
            body = self._listing.lines(cells, room, now_unix_s)
        body = body[:room] + [[]] * (room - len(body))
        return [*top, *body, self._foot(snapshot, cells)][:height]

    def _state_line(self, snapshot: Snapshot, cells: int) -> Line:
        writer = snapshot.writer
        text, style = _SAID.get(writer.state, (writer.state, Style.PLAIN))
        if writer.mode:
            text += f", {writer.mode}"
        if writer.stalled:
            text += f": {writer.stalled}"
        right = f" writer {text}" + ("  HELD" if self._held else "")
        left = fit(f"keyop {clean(snapshot.data_dir)}", max(0, cells - len(right)))
        return [(left, Style.BOLD), (right, style)]

    def _tabs(self, snapshot: Snapshot, cells: int) -> Line:
        line: Line = []
        for number, listing in enumerate(self._listings):
            count = len(listing.table.rows(snapshot))
            style = Style.BAR if number == self._number else Style.PLAIN
            line += [(f" {number + 1} {listing.table.title} {count:,} ", style), (" ", Style.PLAIN)]
        taken = sum(len(text) for text, _ in line)
        messages = sum(row.messages_per_s or 0 for row in snapshot.channels)
        rates = f"{figures.rate(messages) or '0'} msg/s"
        return [*line, (fit(rates, max(0, cells - taken), right=True), Style.DIM)]

    def _foot(self, snapshot: Snapshot, cells: int) -> Line:
        if self._typing:
            return [(fit(f"/{clean(self._listing.filter)}_   Enter keeps it, Esc shows all", cells), Style.BOLD)]
        if snapshot.trouble is not None:
            return [(fit(clean(snapshot.trouble), cells), Style.BAD)]
        text = "any key goes back" if self._helping else _FOOT_BACK if self._pages else _FOOT
        if self._listing.filter and not self._pages:
            text = f"only {self._listing.filter!r}, Esc shows all  {text}"
        return [(fit(clean(text), cells), Style.DIM)]


_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1}
_PAGES = {"pageup": -1, "pagedown": 1, " ": 1}
_SAID = {
    "open": ("open", Style.GOOD),
    "starting": ("starts", Style.WARN),
    "closing": ("leaves", Style.WARN),
    "gone": ("has left", Style.WARN),
    "stalled": ("stalled", Style.BAD),
    "not running": ("not running", Style.DIM),
    "unseen": ("runs elsewhere: with another /dev/shm or user", Style.WARN),
    "empty": ("not running: nobody has published yet", Style.DIM),
    "no directory": ("is gone, and so is its directory", Style.BAD),
}
