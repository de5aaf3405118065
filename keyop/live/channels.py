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

    __slots__ = ("end", "files", "history", "is_counted", "last_write_unix_s", "live", "records", "row")

    def __init__(self, end: int, records: int) -> None:
        self.end = end
        self.records = records
        self.is_counted = False
        self.history: deque[float] = deque(maxlen=HISTORY_LOOKS)
        self.last_write_unix_s = 0.0
        self.row: ChannelView | None = None
        self.files: ChannelFiles | None = None
        self.live: set[str] | None = None


class ChannelRows:
    """Makes them, and keeps the history of each channel's rate. A channel that stands still keeps its row."""

    def __init__(self, board: BoardWatch) -> None:
        self._board = board
        self._known: dict[str, _Known] = {}
        self._life = 0

    def ends(self, files: Mapping[str, ChannelFiles]) -> dict[str, int]:
        """The end of each channel that exists: the board's, else what the files said last."""
        ends: dict[str, int] = {}
        for name, known in files.items():
            end = self._board.end(name)
            if end is not None:
                ends[name] = end
            elif known.exists:
                ends[name] = known.end_offset
        return ends

    def rows(
        self,
        files: Mapping[str, ChannelFiles],
        ends: Mapping[str, int],
        attached: Sequence[AttachedProcess],
        elapsed_s: float,
    ) -> tuple[ChannelView, ...]:
        """One for each channel, by name."""
        live: dict[str, set[str]] = {}
        for process in attached:
            for held in process.subscriptions:
                live.setdefault(held.channel, set()).add(held.id)
        life = self._board.life
        is_first = not elapsed_s
        is_new_board, self._life = life != self._life, life
        rows = []
        for name in sorted(ends):
            end, records = ends[name], self._board.records(name)
            known = self._known.get(name)
            if known is None:
                # One that was not there in the look before has begun since then.
                known = self._known[name] = _Known(end, records or 0) if is_first else _Known(0, 0)
            elif is_new_board:
                known.records = 0
            elif records is not None:
                # It only grows; less was read while the writer stored it.
                records = max(records, known.records)
            rows.append(_row(name, known, files[name], end, records, live.get(name), elapsed_s))
        for gone in self._known.keys() - ends.keys():
            del self._known[gone]
        return tuple(rows)


def _row(
    name: str,
    known: _Known,
    files: ChannelFiles,
    end: int,
    records: int | None,
    live: set[str] | None,
    elapsed_s: float,
) -> ChannelView:
    grown_bytes = max(0, end - known.end)
    grown = None if records is None else max(0, records - known.records)
    # Most channels stand still, and there may be thousands.
    is_quiet = not (grown or grown_bytes or known.history)
    is_same = known.files is files and known.live == live and known.is_counted == (records is not None)
    if is_quiet and is_same and known.row is not None and not known.row.bytes_per_s:
        return known.row
    known.is_counted = records is not None
    if end != known.end:
        known.last_write_unix_s = round(time.time(), 3)
    per_s = None if grown is None else _per_s(grown, elapsed_s)
    known.end, known.records, known.files, known.live = end, records or 0, files, live
    known.row = ChannelView(
        channel=name,
        messages_per_s=per_s,
        bytes_per_s=_per_s(grown_bytes, elapsed_s),
        history=_remember(known.history, per_s or 0.0),
        # With what was written since the files were looked at.
        bytes=files.bytes + max(0, end - files.end_offset),
        end_offset=end,
        subscribers=len(files.offsets.keys() | live) if live else len(files.offsets),
        last_write_unix_s=max(known.last_write_unix_s, files.last_write_unix_s or 0.0) or None,
    )
    return known.row


def _per_s(grown: int, elapsed_s: float) -> float:
    return round(grown / elapsed_s, 2) if elapsed_s > 0 else 0.0


def _remember(history: deque[float], per_s: float) -> tuple[float, ...]:
    if per_s or history:
        history.append(per_s)
        if not any(history):
            history.clear()
    return tuple(history)
