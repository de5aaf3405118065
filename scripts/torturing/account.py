"""What is in a directory and what the ledger says of it, by message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torturing.ledger import EARLIER_NS, Note
from torturing.records import ChannelContents, read_channels
from torturing.workload import SUBSCRIPTIONS, failing

INPUTS = ("in", "other")
"""Where publishers write."""


class Name(NamedTuple):
    """A message of the workload."""

    who: str
    life: int
    number: int

    def __str__(self) -> str:
        return f"{self.who}/{self.life}/{self.number}"

    @property
    def fails(self) -> str:
        """Who fails with it for good."""
        return failing(self.number)


class Letter(NamedTuple):
    """A dead letter."""

    of: Name
    by: str
    error: str
    id: str = ""

    @property
    def of_a_killed(self) -> bool:
        """Whether it is there because its subscriber was killed again and again while it handled the message."""
        return self.error.startswith("the process ended during attempt")


class Account:
    """Where each message stands, or stood before its segment was removed, and who handled it."""

    def __init__(self, directory: Path, notes: list[Note]) -> None:
        self.notes = notes
        self.channels: dict[str, ChannelContents] = read_channels(directory)
        self.places: dict[str, dict[Name, set[int]]] = {
            name: defaultdict(set) for name in (*INPUTS, "out", "copy", *self.channels)
        }
        self.said: dict[Name, dict[str, Any]] = {}
        """The payloads of inputs."""
        self.letters: list[Letter] = []
        self.marks: list[str] = []
        """The ids of letters that somebody has seen to, one for each mark."""
        self.handled: dict[str, set[Name]] = {id: set() for id in SUBSCRIPTIONS}
        self._collect_records()
        self._collect_notes()
        self._collect_removed()

    def _collect_records(self) -> None:
        for channel, contents in self.channels.items():
            for record in contents.records:
                said = record.payload
                if channel.endswith(".dead-letter"):
                    if "dead_letter" in said:
                        self.marks.append(said["dead_letter"])
                    else:
                        self.letters.append(_letter(said, record.envelope["id"]))
                    continue
                name = _name(said)
                self.places[channel][name].add(record.offset)
                if channel in INPUTS:
                    self.said[name] = said

    def _collect_notes(self) -> None:
        fresh = self._fresh_from()
        for note in self.notes:
            if note["what"] in ("handled", "failed"):
                name, channel, offset = Name(*note["of"]), note["channel"], note["at"]
                if note["what"] == "handled":
                    self.handled[note["by"]].add(name)
                lost = note["t"] == EARLIER_NS and offset >= fresh.get(channel, offset + 1)
                if offset < self.first(channel) and not lost:
                    self.places[channel][name].add(offset)

    def _fresh_from(self) -> dict[str, int]:
        """Where the first message stands that came after an earlier cut: what was handled there before it, was lost."""
        earlier = {(note["who"], note["life"]) for note in self.notes if note["t"] == EARLIER_NS}
        fresh: dict[str, int] = {}
        for note in self.notes:
            if note["what"] in ("handled", "failed") and (note["of"][0], note["of"][1]) not in earlier:
                fresh[note["channel"]] = min(note["at"], fresh.get(note["channel"], note["at"]))
        return fresh

    def _collect_removed(self) -> None:
        """Messages whose handler was killed before it noted anything, and whose segment is gone."""
        for letter in self.letters:
            channel = SUBSCRIPTIONS.get(letter.by, "")
            if self.first(channel) > 0 and letter.of not in self.places.get(channel, {}):
                self.places[channel][letter.of] = set()

    def first(self, channel: str) -> int:
        """Below that its segments are removed."""
        contents = self.channels.get(channel)
        return contents.first if contents is not None else 0


def published(note: Note) -> Iterator[tuple[str, Name]]:
    """Channel and name of all that a note says was acknowledged."""
    if note["what"] == "published":
        for number in note["ns"]:
            yield note["channel"], Name(note["who"], note["life"], number)
    elif note["what"] == "atomic":
        for channel, number in note["parts"]:
            yield channel, Name(note["who"], note["life"], number)


def _name(said: dict[str, Any]) -> Name:
    return Name(said.get("from", "?"), said.get("life", -1), said.get("n", -1))


def _letter(said: dict[str, Any], id: str) -> Letter:
    original = said.get("original") or {}
    return Letter(_name(original.get("payload") or {}), said.get("subscriber", "?"), said.get("last_error", ""), id)
