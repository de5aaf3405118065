"""What a turned bit has cost: a directory's messages and offsets as they would be without it, and as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from keyop.inspection.verification import Verification, verify
from keyop.storage.directory import DataDirectory
from torturing.findings import Violation
from torturing.flipping.bits import Bit, lines_of
from torturing.flipping.directories import Made, Subscriber
from torturing.flipping.reading import Reading, changed_keys, is_json
from torturing.flipping.starting import Start

HARMLESS = "nothing"
NOTICED = "nothing, and said"
LOST = "a record lost, said"
REPEATED = "messages come again, said"
REFUSED = "exactly-once refused"
FEWER = "attempts forgotten"
PAYLOAD = "payload changed, silently"
HEADER = "header changed, silently"
PAYLOAD_NOTED = "payload changed, verify notes it"
HEADER_NOTED = "header changed, verify notes it"
OUTCOMES = (HARMLESS, NOTICED, LOST, REPEATED, REFUSED, FEWER, PAYLOAD, PAYLOAD_NOTED, HEADER, HEADER_NOTED)
"""What a bit may cost; all else is a violation."""

_ODD = frozenset(("odd",))
_OF_LINES = frozenset(("damaged", "oversized", "torn"))


class State(NamedTuple):
    """A directory after a writer's start."""

    reading: Reading
    places: dict[Subscriber, int | None]
    """Where it goes on; None: it is refused."""
    attempts: dict[Subscriber, tuple[int, int]]
    said: list[str]
    """By the writer, the subscribers' openings and their reading."""
    verified: Verification
    """`keyop verify` afterwards."""


def start(directory: DataDirectory, subscribers: list[Subscriber]) -> State:
    """Have a writer start, and look."""
    began = Start(directory)
    places = {subscriber: began.place_of(subscriber) for subscriber in subscribers}
    attempts = {subscriber: began.attempts_of(subscriber) for subscriber in subscribers}
    reading = Reading(directory)
    return State(reading, places, attempts, began.said + reading.said, verify(directory.path))


class Verdict(NamedTuple):
    """What one bit has cost."""

    outcomes: Counter[str]
    violations: list[Violation]


def judge(bit: Bit, sound: State, found: State, made: Made) -> Verdict:
    """Compare."""
    judgement = _Judgement(bit, sound, found, made)
    judgement.lines()
    judgement.places()
    judgement.verify()
    if not judgement.outcomes:
        judgement.outcomes[NOTICED if found.said != sound.said else HARMLESS] += 1
    return Verdict(judgement.outcomes, judgement.violations)


class _Judgement:
    def __init__(self, bit: Bit, sound: State, found: State, made: Made) -> None:
        self.outcomes: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self._bit = bit
        self._sound = sound
        self._found = found
        self._made = made
        self._news = [text for text in found.said if text not in sound.said]

    def _say(self, kind: str, text: str) -> None:
        self.violations.append(Violation(kind, f"{self._made.name}: {self._bit}: {text}"))

    # ---- messages

    def lines(self) -> None:
        """At most the record that the bit is in, or the frame, and it is said."""
        lost: list[tuple[str, int]] = []
        for channel, before in self._sound.reading.delivered.items():
            after = self._found.reading.delivered.get(channel, {})
            lost += [(channel, offset) for offset in before.keys() - after.keys()]
            for offset in after.keys() - before.keys():
                self._say("doubled", f"{channel} at {offset}: {after[offset][:80]!r} was never published")
            for offset in before.keys() & after.keys():
                if before[offset] != after[offset]:
                    self._changed(channel, offset, before[offset], after[offset])
        if lost:
            self._lost(lost)
        for channel in self._found.reading.delivered.keys() - self._sound.reading.delivered.keys():
            self._say("doubled", f"a channel {channel!r} that was not there")

    def _changed(self, channel: str, offset: int, before: bytes, after: bytes) -> None:
        if self._bit.region.what != "segment":
            self._say("garbled", f"{channel} at {offset}: {after!r} instead of {before!r}")
        if not is_json(after):
            self._say("torn", f"{channel} at {offset}: delivered, and no JSON: {after!r}")
        keys = changed_keys(before, after)
        noted = (channel, offset) in set(_places(self._found.verified, _ODD)) or "channel" in keys
        if not keys:
            self.outcomes[HARMLESS] += 1  # another way to write the same
        elif keys == ["payload"]:
            self.outcomes[PAYLOAD_NOTED if noted else PAYLOAD] += 1
        else:
            self.outcomes[HEADER_NOTED if noted else HEADER] += 1

    def _lost(self, lost: list[tuple[str, int]]) -> None:
        self.outcomes[LOST] += 1
        region = self._bit.region
        if region.what == "segment":
            if len(lost) > 1:
                self._say("lost", f"more than one record: {sorted(lost)}")
        elif region.frame is not None and not self._made.whole:
            lines = lines_of(region.frame)
            beyond = [(channel, offset) for channel, offset in lost if offset not in lines.get(channel, ())]
            if beyond:
                self._say("lost", f"more than the frame holds: {sorted(beyond)}")
        else:
            self._say("lost", f"{sorted(lost)}")
        if not self._news:
            self._say("silent", f"lost without a word: {sorted(lost)}")

    # ---- subscribers

    def places(self) -> None:
        """Nobody jumps over a message; who gets some again is told so, and an exactly-once one is refused."""
        for subscriber in self._made.subscribers:
            before, after = self._sound.places[subscriber], self._found.places[subscriber]
            assert before is not None
            if after is None:
                self.outcomes[REFUSED] += 1
                if self._bit.region.what != "offset file":
                    self._say("refused", f"{subscriber}")
            elif after != before:
                self._moved(subscriber, before, after)
            if self._found.attempts[subscriber] != self._sound.attempts[subscriber]:
                self._attempts(subscriber)

    def _moved(self, subscriber: Subscriber, before: int, after: int) -> None:
        between = range(min(before, after), max(before, after))
        messages = [offset for offset in self._found.reading.delivered[subscriber.channel] if offset in between]
        if after > before and messages:
            self._say("skipped", f"{subscriber} goes on at {after} instead of {before}: over {messages}")
        elif after < before and messages:
            self.outcomes[REPEATED] += 1
            if not self._news:
                self._say("silent", f"{subscriber} gets {messages} again, without a word")
            if subscriber.exactly_once and self._bit.region.what not in ("frame", "segment"):
                self._say("doubled", f"{subscriber} is exactly-once and gets {messages} again")

    def _attempts(self, subscriber: Subscriber) -> None:
        before, after = self._sound.attempts[subscriber], self._found.attempts[subscriber]
        at_place = after[1] == self._found.places[subscriber]
        if after[0] > before[0] and at_place:
            self._say("attempts", f"{subscriber}: {after} instead of {before}: it may be given up too early")
        elif before[0]:
            self.outcomes[FEWER] += 1

    # ---- keyop verify

    def verify(self) -> None:
        """It names the lines that readers pass over, and no others."""
        found = self._found
        named = set(_places(found.verified, _OF_LINES))
        if named != found.reading.damaged:
            self._say("verify", f"names {sorted(named)}, readers pass over {sorted(found.reading.damaged)}")
        versions = set(_places(found.verified, frozenset(("version",))))
        if versions != found.reading.other_versions:
            self._say("verify", f"names other versions at {sorted(versions)}")
        gaps = sum(finding.kind in ("gap", "overlap") for finding in found.verified.problems)
        if bool(gaps) != bool(found.reading.gaps):
            self._say("verify", f"{gaps} gaps or overlaps; readers found {found.reading.gaps}")


def _places(verified: Verification, kinds: frozenset[str]) -> Iterator[tuple[str, int]]:
    for finding in verified.findings:
        if finding.kind in kinds and finding.offset is not None:
            yield finding.path.split("/")[-2], finding.offset
