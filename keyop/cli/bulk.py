"""Publishing lines of input: in order, in batches, and what becomes of a bad one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyop.cli.input_lines import InputLine
from keyop.errors import PayloadError

Parse = Callable[[bytes], Any]
PublishBatch = Callable[[list[Any]], Any]


class BadInputLine(Exception):
    """A line that is no message. All before it are published, nothing after it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number


class Bulk:
    """Publishes batches of lines and counts."""

    def __init__(
        self, publish_batch: PublishBatch, parse: Parse, on_bad: Callable[[BadInputLine], None] | None
    ) -> None:
        """``on_bad`` is told of a bad line, which is passed over; without it the line is raised."""
        self._publish_batch = publish_batch
        self._parse = parse
        self._on_bad = on_bad
        self.published = 0
        self.skipped = 0

    def add(self, lines: list[InputLine]) -> None:
        """Publish what is good. Raises `BadInputLine` and what publishing raises."""
        good: list[tuple[int, Any]] = []
        for line in lines:
            try:
                good.append((line.number, self._parsed(line)))
            except PayloadError as error:
                self._publish(good)
                good = []
                self._bad(line.number, error)
        self._publish(good)

    def _parsed(self, line: InputLine) -> Any:
        if line.text is None:
            raise PayloadError("too long for a message; put the bulk into a file and publish its name")
        return self._parse(line.text)

    def _publish(self, good: list[tuple[int, Any]]) -> None:
        if not good:
            return
        try:
            self._publish_batch([payload for _, payload in good])
            self.published += len(good)
        except PayloadError as error:
            # One of them is too large as an envelope: nothing of the batch was sent.
            if len(good) == 1:
                self._bad(good[0][0], error)
                return
            for one in good:
                self._publish([one])

    def _bad(self, number: int, error: PayloadError) -> None:
        bad = BadInputLine(number, str(error))
        if self._on_bad is None:
            raise bad
        self.skipped += 1
        self._on_bad(bad)
