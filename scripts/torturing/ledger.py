"""What each process was told: notes of acknowledgements, in a file that outlives every kill and every power cut.

It lies outside the data directory. A note is appended with one ``write`` when ``publish`` has returned, or in a handler
before it returns:

    {"what":"published","who":"p1","life":3,"channel":"in","ns":[17],"sync":false,"mark":81920,"t":5120000}

``mark`` is the length of the disk's log at that moment, read from a small mapped file (0 where there is none), ``t``
the monotonic clock in nanoseconds.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Note = dict[str, Any]

MARK = struct.Struct("<Q")
"""The mark's file: one number, written by whoever serves the disk."""
EARLIER_NS = 1 << 63
"""The time ``t`` that stands in notes of before an earlier power cut."""


class Notebook:
    """The hand of one process that writes into a ledger."""

    def __init__(self, path: Path | str, who: str, life: int, mark: Path | str | None = None) -> None:
        self.who = who
        self.life = life
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._mark = _map(mark) if mark is not None else None

    def note(self, what: str, **details: object) -> None:
        """Append a note.

        A newline on both sides: what a kill tears off a note must not spoil the next one.
        """
        mark = MARK.unpack_from(self._mark)[0] if self._mark is not None else 0
        whole = {"what": what, "who": self.who, "life": self.life, **details, "mark": mark, "t": time.monotonic_ns()}
        os.write(self._fd, f"\n{json.dumps(whole, separators=(',', ':'))}\n".encode())


def _map(path: Path | str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), MARK.size, access=mmap.ACCESS_READ)


class Ledger:
    """The notes of all processes, in the order in which they were written.

    Several files are read one after the other: the notes of a crew, then those of whoever drained an image of its disk.
    """

    def __init__(self, *paths: Path | str) -> None:
        self.paths = [Path(path) for path in paths]
        self._followed_bytes = 0
        self._rest = b""

    @property
    def path(self) -> Path:
        """Where new notes go."""
        return self.paths[-1]

    def notes(self, at_mark: int | None = None) -> Iterator[Note]:
        """All notes; with ``at_mark`` only those that had been written when the disk's log was that long.

        Only the first file is cut there: what follows was written after the power came back.
        """
        for number, path in enumerate(self.paths):
            if path.exists():
                for note in _parse(path.read_bytes().split(b"\n")):
                    if number or at_mark is None or note["mark"] <= at_mark:
                        yield note

    def news(self) -> Iterator[Note]:
        """Notes of the last file that were written since this was last called."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._followed_bytes)
            data = file.read()
        self._followed_bytes += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        yield from _parse(lines)


def _parse(lines: list[bytes]) -> Iterator[Note]:
    for line in lines:
        if not line:
            continue
        try:
            note = json.loads(line)
        except ValueError:
            continue  # torn by a kill: nobody was told
        yield note
