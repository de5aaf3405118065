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
    """Iterates over the records of an audit directory. ``on_damaged(path, text)`` hears of lines that are none."""

    def __init__(self, directory: Path, on_damaged: Callable[[Path, str], None]) -> None:
        self._directory = directory
        self._on_damaged = on_damaged
        self._live: BinaryIO | None = None
        self._rest = b""

    def records(self) -> Iterator[AuditRecord]:
        """All that are there. The live file stays open for `more`. Raises `OSError`."""
        for path in files(self._directory):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue  # rotated away in between
            if path.name == NAME:
                self._live = file
                yield from self.more()
            else:
                with file:
                    yield from self._parse(path, self._lines(file))
                    self._rest = b""

    def more(self) -> Iterator[AuditRecord]:
        """What was added since. Goes on in the next file where the live one was rotated. Raises `OSError`."""
        while True:
            if self._live is None:
                try:
                    self._live = (self._directory / NAME).open("rb")
                except FileNotFoundError:
                    return
            yield from self._parse(self._directory / NAME, self._lines(self._live))
            passed = self._rotated_since()
            if passed is None:
                return
            yield from self._parse(self._directory / NAME, self._lines(self._live))  # what came before it was rotated
            self._live.close()
            self._live = None
            self._rest = b""
            for path in passed:
                with path.open("rb") as file:
                    yield from self._parse(path, self._lines(file))

    def _rotated_since(self) -> list[Path] | None:
        """None while the open file is the live one, else the rotated files that are younger than it."""
        assert self._live is not None
        here = os.fstat(self._live.fileno())
        all_files = files(self._directory)
        for number, path in enumerate(all_files):
            with contextlib.suppress(FileNotFoundError):
                there = path.stat()
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    if path.name == NAME:
                        return None
                    return [each for each in all_files[number + 1 :] if each.name != NAME]
        return [] if here.st_nlink == 0 or all_files else None

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Whole lines; the rest of the last one is kept for the next look."""
        while data := file.read(_READ_BYTES):
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _MAX_LINE_BYTES:
                self._rest = b""
            yield from lines

    def _parse(self, path: Path, lines: Iterator[bytes]) -> Iterator[AuditRecord]:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                yield record
            elif line:
                self._on_damaged(path, line[:80].decode(errors="replace"))

    def follow(self) -> Generator[AuditRecord, None, None]:
        """`more`, for ever, woken by changes of the directory."""
        from watchfiles import watch

        changes = watch(
            self._directory, watch_filter=None, rust_timeout=_TICK_MS, yield_on_timeout=True, recursive=False
        )
        try:
            while True:
                yield from self.more()
                next(changes, None)
        finally:
            changes.close()

    def close(self) -> None:
        """Close the live file."""
        if self._live is not None:
            self._live.close()
            self._live = None
