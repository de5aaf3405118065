"""SQLite in WAL mode: a table for each channel, and a table of offsets."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, Receiver, Sender, rival_line, rival_number, rival_payload

# SQLite cannot wake another process: it has to look again and again.
_POLL_S = 0.0005
_BATCH = 1000


def _open(path: Path, strict: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={'FULL' if strict else 'NORMAL'}")
    database.execute("CREATE TABLE IF NOT EXISTS offsets(channel TEXT PRIMARY KEY, next INTEGER)")
    return database


def _make_table(database: sqlite3.Connection, channel: str) -> None:
    database.execute(f'CREATE TABLE IF NOT EXISTS "{channel}"(id INTEGER PRIMARY KEY, line BLOB)')


class _Sender(Sender):
    def __init__(self, path: Path, strict: bool, channels: list[str]) -> None:
        self._database = _open(path, strict)
        for channel in channels:
            _make_table(self._database, channel)

    def send(self, channel: str, number: int) -> None:
        self._database.execute(f'INSERT INTO "{channel}"(line) VALUES(?)', (rival_line(number),))

    def send_many(self, channel: str, first: int, count: int) -> None:
        lines = [(rival_line(number),) for number in range(first, first + count)]
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(f'INSERT INTO "{channel}"(line) VALUES(?)', lines)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


class _Receiver(Receiver):
    def __init__(self, path: Path, strict: bool, channel: str) -> None:
        self._database = _open(path, strict)
        self._channel = channel
        _make_table(self._database, channel)

    def take(self, count: int, handle: Callable[[Any], object]) -> None:
        query = f'SELECT id, line FROM "{self._channel}" WHERE id > ? ORDER BY id LIMIT {_BATCH}'
        last = 0
        while count > 0:
            rows = self._database.execute(query, (last,)).fetchall()
            if not rows:
                time.sleep(_POLL_S)
                continue
            for row in rows:
                handle(row)
            count -= len(rows)
            last = rows[-1][0]
            self._database.execute("INSERT OR REPLACE INTO offsets VALUES(?, ?)", (self._channel, last))

    def number(self, message: Any) -> int:
        return rival_number(message[1])

    def payload(self, message: Any) -> Any:
        return rival_payload(message[1])

    def close(self) -> None:
        self._database.close()


class SQLite(Contender):
    """`synchronous=FULL` when strict; `NORMAL` when not, which syncs at a checkpoint only."""

    key = "sqlite"
    label = f"SQLite {sqlite3.sqlite_version} WAL"

    def start(self, place: Path, strict: bool) -> None:
        self._path = place / "messages.db"
        self._strict = strict
        _open(self._path, strict).close()

    def sender(self, channels: list[str]) -> Sender:
        return _Sender(self._path, self._strict, channels)

    def receiver(self, channel: str) -> Receiver:
        return _Receiver(self._path, self._strict, channel)
