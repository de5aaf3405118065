"""What keyop-messenger, the Go program, does to the files of a data directory, without the Go program.

Taken from what its releases were seen to do. It takes no lock, syncs little, and knows neither ``journal/`` nor
``run/``.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# Releases from this one on cut what follows the last newline of the active segment when they start.
CUTS_TORN_LINES = (1, 13)
DEAD_LETTER_TYPE = "com.keyop.messenger.DeadLetterPayload"


class Written(NamedTuple):
    """A message of the Go program's, by channel and number."""

    channel: str
    number: int


class GoProgram:
    """One run of it on a directory."""

    def __init__(self, data_dir: Path, release: tuple[int, int], chance: random.Random, first: int) -> None:
        """``first`` is the number of the first message that it publishes."""
        self.release = release
        self.written: list[Written] = []
        self.removed: list[bytes] = []
        """The lines of segments that it removed."""
        self.first: dict[str, int] = {}
        """Channel → where it begins since then."""
        self.overlapped = False
        self._data_dir = data_dir
        self._chance = chance
        self._next = first
        self._opened: set[str] = set()
        for name in ("channels", "subscribers", "audit"):
            (data_dir / name).mkdir(exist_ok=True)
        (data_dir / "audit" / "audit.jsonl").touch()

    def restart(self) -> None:
        """Channels are opened anew."""
        self._opened.clear()

    # ---- segments

    def segments(self, channel: str) -> list[Path]:
        """The channel's files, the active one last; made when the channel is used for the first time."""
        directory = self._data_dir / "channels" / channel
        directory.mkdir(exist_ok=True)
        found = sorted(path for path in directory.iterdir() if len(path.stem) == 20 and path.suffix == ".jsonl")
        if not found:
            found = [directory / f"{0:020d}.jsonl"]
            found[0].touch()
        return found

    def _active(self, channel: str) -> Path:
        path = self.segments(channel)[-1]
        if channel not in self._opened:
            self._opened.add(channel)
            if self.release >= CUTS_TORN_LINES:
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)
        return path

    def publish(self, channel: str, count: int = 1) -> None:
        """Append whole lines. Behind a torn one an old release glues its first."""
        for _ in range(count):
            payload = {"from": "go", "life": 0, "n": self._next, "note": "<&>" * self._chance.randrange(30)}
            self._append(channel, self._line(channel, payload))
            self.written.append(Written(channel, self._next))
            self._next += 1

    def dead_letter(self, channel: str) -> None:
        """Give a message up."""
        payload = {"original": json.loads(self._line(channel, {"from": "go", "life": 0, "n": -1}))}
        details = {"retries": 5, "last_error": "unlucky", "failed_at": _now()}
        self._append(
            f"{channel}.dead-letter", self._line(f"{channel}.dead-letter", payload | details, DEAD_LETTER_TYPE)
        )

    def _append(self, channel: str, line: bytes) -> None:
        with self._active(channel).open("ab") as file:
            file.write(line)

    @staticmethod
    def _line(channel: str, payload: dict[str, Any], payload_type: str = "com.example.Alert") -> bytes:
        envelope = {
            "v": 1,
            "id": str(uuid.uuid4()),
            "ts": _now(),
            "channel": channel,
            "origin": "go-host",
            "payload_type": payload_type,
            "payload": payload,
        }
        text = json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text.encode() + b"\n"

    def tear(self, channel: str) -> None:
        """It is killed in the middle of a write."""
        line = self._line(channel, {"from": "go", "life": 0, "n": -1, "note": "torn"})
        self._append(channel, line[: self._chance.randrange(1, len(line))])

    def roll(self, channel: str) -> None:
        """Go on in the next file, which is there before anything stands in it."""
        path = self._active(channel)
        size = path.stat().st_size
        if size:
            path.with_name(f"{int(path.stem) + size:020d}.jsonl").touch(exist_ok=True)

    def roll_too_early(self, channel: str) -> None:
        """Up to 1.21: a full disk took a part of a write, and the next file begins before this one ends."""
        path = self._active(channel)
        size = path.stat().st_size
        if size > 50:
            name = f"{int(path.stem) + size - self._chance.randrange(1, 50):020d}.jsonl"
            path.with_name(name).touch(exist_ok=True)
            self.overlapped = True

    def compact(self, channel: str, count: int = 1) -> None:
        """Remove the oldest files, read or not, but never the last one."""
        segments = self.segments(channel)
        for path, following in list(pairwise(segments))[:count]:
            self.removed += path.read_bytes().split(b"\n")[:-1]
            self.first[channel] = int(following.stem)
            path.unlink()

    # ---- offsets

    def _offset_file(self, channel: str, id: str) -> Path:
        directory = self._data_dir / "subscribers" / channel
        directory.mkdir(exist_ok=True)
        return directory / f"{id}.offset"

    def offset(self, channel: str, id: str) -> int:
        """What it reads, as Go does: blanks trimmed."""
        path = self._offset_file(channel, id)
        return int(path.read_text().strip()) if path.exists() else 0

    def store_offset(self, channel: str, id: str, offset: int) -> None:
        """A number and a newline, renamed into place."""
        path = self._offset_file(channel, id)
        draft = path.with_name(path.name + ".tmp")
        draft.write_text(f"{offset}\n")
        draft.replace(path)

    def leave_drafts(self, channel: str, id: str) -> None:
        """It is killed before it renames one."""
        path = self._offset_file(channel, id)
        path.with_name(path.name + ".tmp").write_text("12")

    def unsubscribe(self, channel: str, id: str) -> None:
        """The offset goes."""
        self._offset_file(channel, id).unlink(missing_ok=True)

    def audit(self) -> None:
        """Hub and client log what they do."""
        with (self._data_dir / "audit" / "audit.jsonl").open("a") as file:
            file.write(json.dumps({"ts": _now(), "event": "client_connected", "peer": "laptop"}) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 1_000_000_000:09d}Z"
