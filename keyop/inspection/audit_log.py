"""The audit log of the federation, as people and scripts read it: oldest first, over rotated files, and as it grows.

Files of the Go program are read as well: their ``peer`` may be an address, and keys that are not known are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from keyop.messages.timestamps import parse_ns
from keyop.storage.audit_file import NAME

_READ_BYTES = 1 << 20
_TICK_MS = 500
_MAX_LINE_BYTES = 1 << 20

AuditRecord = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: every condition that is given has to hold."""

    events: frozenset[str] = frozenset()
    peer: str = ""
    """Its certificate's name, or its address."""
    channel: str = ""
    since: datetime | None = None

    def __call__(self, record: AuditRecord) -> bool:
        """Whether a record is wanted."""
        if self.events and record.get("event") not in self.events:
            return False
        if self.peer and self.peer not in (record.get("peer"), record.get("peer_addr")):
            return False
        if self.channel and record.get("channel") != self.channel:
            return False
        if self.since is None:
            return True
        ns = parse_ns(str(record.get("ts", "")))
        return ns is not None and ns >= int(self.since.timestamp() * 1e9)


def files(directory: Path) -> list[Path]:
    """The files of the log, oldest first."""
    numbers = []
    for name in os.listdir(directory) if directory.is_dir() else ():
        stem, _, suffix = name.rpartition(".")
        if stem == NAME and suffix.isascii() and suffix.isdigit():
            numbers.append(int(suffix))
    rotated = [directory / f"{NAME}.{number}" for number in sorted(numbers, reverse=True)]
    live = directory / NAME
    return [*rotated, live] if live.exists() else rotated


class AuditLog:
    """Reads the records of an audit directory. ``on_damaged(path, text)`` hears of lines that are none."""

    def __init__(self, directory: Path, on_damaged: Callable[[Path, str], None]) -> None:
        self._directory = directory
        self._on_damaged = on_damaged
        # The file that is read, which may have got another name meanwhile.
        self._file: BinaryIO | None = None
        self._rest = b""

    def records(self) -> Iterator[AuditRecord]:
        """All that have come since the last call, oldest first; at the first call all that there are.

        Raises `OSError`.
        """
        while True:
            if self._file is not None:
                yield from self._parse(self._lines(self._file))
            younger = self._younger()
            if not younger:
                return
            if self._file is not None:
                yield from self._parse(self._lines(self._file))  # what came before the next one was begun
                self.close()
            try:
                self._file = younger[0].open("rb")
            except FileNotFoundError:
                continue  # rotated away in between

    def _younger(self) -> list[Path]:
        """The files that are younger than the one that is read, oldest first; all of them if none is."""
        found = files(self._directory)
        if self._file is None:
            return found
        here = os.fstat(self._file.fileno())
        for number, path in enumerate(found):
            with contextlib.suppress(FileNotFoundError):
                there = path.stat()
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    return found[number + 1 :]
        return found  # it was removed, being the oldest

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Whole lines; the rest of the last one is kept for the next look."""
        while data := file.read(_READ_BYTES):
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _MAX_LINE_BYTES:
                self._rest = b""
            yield from lines

    def _parse(self, lines: Iterator[bytes]) -> Iterator[AuditRecord]:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                yield record
            elif line:
                self._on_damaged(self._directory / NAME, line[:80].decode(errors="replace"))

    def follow(self) -> Generator[AuditRecord, None, None]:
        """`records`, for ever, woken by changes of the directory."""
        from watchfiles import watch

        changes = watch(
            self._directory, watch_filter=None, rust_timeout=_TICK_MS, yield_on_timeout=True, recursive=False
        )
        try:
            while True:
                yield from self.records()
                next(changes, None)
        finally:
            changes.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._rest = b""
