"""The last messages of a channel on the screen, and one of them in full."""

from __future__ import annotations

import json

from keyop.live.messages import MessageView
from keyop.top.cells import clean, fit, wrap
from keyop.top.listing import Line
from keyop.top.table import Style


class Messages:
    """A channel's last messages, the newest first."""

    def __init__(self, channel: str, messages: list[MessageView], trouble: str | None = None) -> None:
        self.channel = channel
        self.messages = messages
        self.trouble = trouble
        """Why they could not be read."""
        self.place = 0
        self._top = 0
        self._height = 1

    @property
    def selected(self) -> MessageView | None:
        """The selected message."""
        return self.messages[self.place] if self.messages else None

    def move(self, rows: int) -> None:
        """Select another one."""
        self.place = max(0, min(self.place + rows, len(self.messages) - 1))

    def page(self, pages: int) -> None:
        """The same by what the screen holds."""
        self.move(pages * max(1, self._height - 1))

    def lines(self, cells: int, height: int) -> list[Line]:
        """One line each: time, who gave up on it, what it is."""
        self._height = max(1, height - 1)
        self._top = max(min(self._top, self.place), self.place - self._height + 1)
        lines: list[Line] = [[(fit(f"LAST MESSAGES OF {self.channel}", cells), Style.BAR)]]
        for place, message in enumerate(self.messages[self._top : self._top + self._height], self._top):
            text = fit(clean(_summary(message)), cells)
            bad = Style.WARN if message.error is not None else Style.PLAIN
            lines.append([(text, Style.BAR if place == self.place else bad)])
        if not self.messages:
            lines.append(
                [(fit(self.trouble or "No message is there.", cells), Style.BAD if self.trouble else Style.DIM)]
            )
        return lines


def _summary(message: MessageView) -> str:
    time = message.ts[11:19] or "--:--:--"
    if message.error is not None:
        who = f"{message.subscriber}: " if message.subscriber else ""
        return f"{time}  {who}{message.error.strip().splitlines()[-1] if message.error.strip() else '(no text)'}"
    return f"{time}  {message.payload_type}  {message.payload}"


class Reading:
    """One message, all of it, with a place to which it is scrolled."""

    def __init__(self, channel: str, message: MessageView) -> None:
        self._channel = channel
        self._message = message
        self._top = 0
        self._height = 1
        self._length = 0

    def move(self, rows: int) -> None:
        """Scroll."""
        self._top = max(0, min(self._top + rows, self._length - self._height))

    def page(self, pages: int) -> None:
        """Scroll by what the screen holds."""
        self.move(pages * max(1, self._height - 1))

    def lines(self, cells: int, height: int) -> list[Line]:
        """The part of it that is scrolled to."""
        self._height = max(1, height - 1)
        text = [(line, style) for part, style in self._parts() for line in wrap(part, cells)]
        self._length = len(text)
        shown = text[self._top : self._top + self._height]
        heading = fit(f"MESSAGE OF {self._channel} AT {self._message.offset:,}", cells)
        return [[(heading, Style.BAR)], *([(fit(line, cells), style)] for line, style in shown)]

    def _parts(self) -> list[tuple[str, Style]]:
        message = self._message
        parts = [
            (f"id      {message.id}", Style.PLAIN),
            (f"time    {message.ts}", Style.PLAIN),
            (f"origin  {message.origin}", Style.PLAIN),
            (f"type    {message.payload_type}", Style.PLAIN),
        ]
        if message.error is not None:
            retries = "" if message.retries is None else f" after {message.retries} retries"
            who = f"{message.subscriber} gave up{retries}" if message.subscriber else f"given up{retries}"
            parts += [("", Style.PLAIN), (who, Style.BOLD), (message.error.rstrip("\n"), Style.BAD)]
        return [*parts, ("", Style.PLAIN), (_pretty(message.payload), Style.PLAIN)]


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text  # cut, or damaged
