"""The rows of channels."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

from keyop.inspection.presence import AttachedProcess
from keyop.live.board import BoardWatch
from keyop.live.files import ChannelFiles
from keyop.live.snapshot import ChannelView

HISTORY_LOOKS = 60


class _Known:
    """One channel, from look to look."""

    __slots__ = ("files", "history", "is_still", "last_write_unix_s", "live", "row", "seen")

    def __init__(self, end: int, records: int | None) -> None:
        self.seen = end, records
        self.history: deque[float] = deque(maxlen=HISTORY_LOOKS)
        self.last_write_unix_s = 0.0
        self.row: ChannelView | None = None
        self.files: ChannelFiles | None = None
        self.live: set[str] | None = None
        self.is_still = False
        """Whether another look that finds the same makes the same row."""


class ChannelRows:
    """Makes them, and keeps the history of each channel's rate. A channel that stands still keeps its row."""

    def __init__(self, board: BoardWatch) -> None:
        self._board = board
        self._known: dict[str, _Known] = {}
        self._life = 0

    def look(
        self, files: Mapping[str, ChannelFiles], attached: Sequence[AttachedProcess], elapsed_s: float
    ) -> tuple[tuple[ChannelView, ...], dict[str, int]]:
        """A row for each channel that exists, by name, and the end of each: the board's, else what the files said."""
        live: dict[str, set[str]] = {}
        for process in attached:
            for held in process.subscriptions:
                live.setdefault(held.channel, set()).add(held.id)
        on_board = self._board.ends_and_records(files)
        unwritten = 0 if self._board.seen is not None else None
        life = self._board.life
        is_new_board, self._life = life != self._life, life
        rows: list[ChannelView] = []
        ends: dict[str, int] = {}
        for name in sorted(files):
            filed = files[name]
            seen = on_board.get(name) or (filed.end_offset, unwritten)
            if not filed.exists and name not in on_board:
                continue
            ends[name] = seen[0]
            known = self._known.get(name)
            if known is None:
                # One that was not there in the look before has begun since then.
                known = self._known[name] = _Known(*seen) if not elapsed_s else _Known(0, 0)
            elif is_new_board:
                known.seen = known.seen[0], 0
            if known.is_still and known.seen == seen and known.files is filed and known.live == live.get(name):
                assert known.row is not None
                rows.append(known.row)
            else:
                rows.append(_row(name, known, filed, seen, live.get(name), elapsed_s))
        for gone in self._known.keys() - ends.keys():
            del self._known[gone]
        return tuple(rows), ends


def _row(
    name: str,
    known: _Known,
    files: ChannelFiles,
    seen: tuple[int, int | None],
    live: set[str] | None,
    elapsed_s: float,
) -> ChannelView:
    (end_before, records_before), (end, records) = known.seen, seen
    if end != end_before:
        known.last_write_unix_s = round(time.time(), 3)
    per_s = None if records is None else _per_s(records - (records_before or 0), elapsed_s)
    bytes_per_s = _per_s(end - end_before, elapsed_s)
    history = _remember(known.history, per_s or 0.0)
    known.seen, known.files, known.live = seen, files, live
    known.is_still = not (per_s or bytes_per_s or history)
    known.row = ChannelView(
        channel=name,
        messages_per_s=per_s,
        bytes_per_s=bytes_per_s,
        history=history,
        # With what was written since the files were looked at.
        bytes=files.bytes + max(0, end - files.end_offset),
        end_offset=end,
        subscribers=len(files.offsets.keys() | live) if live else len(files.offsets),
        last_write_unix_s=max(known.last_write_unix_s, files.last_write_unix_s or 0.0) or None,
    )
    return known.row


def _per_s(grown: int, elapsed_s: float) -> float:
    return round(max(0, grown) / elapsed_s, 2) if elapsed_s > 0 else 0.0


def _remember(history: deque[float], per_s: float) -> tuple[float, ...]:
    if per_s or history:
        history.append(per_s)
        if not any(history):
            history.clear()
    return tuple(history)
