"""The floor: what the disk takes for one line that is appended and synced, without any program around it."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.contender import Contender, Sender, rival_line


class _Append(Sender):
    """`write` + `fdatasync` on one file for each channel; several processes share it by O_APPEND."""

    def __init__(self, place: Path, channels: list[str]) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._files = {channel: os.open(place / f"{channel}.jsonl", flags, 0o600) for channel in channels}

    def send(self, channel: str, number: int) -> None:
        descriptor = self._files[channel]
        os.write(descriptor, rival_line(number))
        os.fdatasync(descriptor)

    def send_many(self, channel: str, first: int, count: int) -> None:
        descriptor = self._files[channel]
        os.write(descriptor, b"".join(rival_line(number) for number in range(first, first + count)))
        os.fdatasync(descriptor)

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)


class Floor(Contender):
    """Bare appends. Nothing that is durable and appends to files can be quicker one by one."""

    key = "floor"
    label = "write + fdatasync (floor)"
    modes = (True,)
    receives = False

    def start(self, place: Path, strict: bool) -> None:
        self._place = place

    def sender(self, channels: list[str]) -> Sender:
        return _Append(self._place, channels)
