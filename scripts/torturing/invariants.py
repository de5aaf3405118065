"""The checker: a data directory at rest and the ledger → which promises were broken.

The directory was recovered and everything in it handled (`torturing.crew.drain`, or `Crew.stop`). Where segments were
removed, what stood in them is known from the notes of those who handled it: only what every subscriber has consumed may
be gone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from keyop.errors import KeyopError
from keyop.inspection import at_rest, verification
from keyop.storage.directory import DataDirectory
from torturing.account import INPUTS, Account, Letter, Name, published
from torturing.findings import Violation
from torturing.ledger import Ledger, Note
from torturing.records import ChannelContents
from torturing.replays import check_put_back
from torturing.workload import SUBSCRIPTIONS, Plan, is_whole

After = Literal["kill", "power cut"]

_NAMED = 8
# No subscriber: nothing of them may be removed.
_KEPT = ("copy", "in.dead-letter", "out.dead-letter", "other.dead-letter")


def check(
    directory: Path,
    ledger: Ledger,
    plan: Plan,
    *,
    after: After = "kill",
    at_mark: int | None = None,
    synced_before_ns: int | None = None,
    drained: bool = True,
) -> list[Violation]:
    """All violations.

    ``at_mark``: only what was acknowledged when the disk's log was that long counts as acknowledged.
    ``synced_before_ns``: in periodic mode, what was acknowledged before that moment has to be there after a power cut.
    ``drained``: whether subscribers and chain had the time to handle everything.
    """
    checker = _Checker(directory, list(ledger.notes(at_mark)), plan, after, synced_before_ns)
    checker.check_files()
    checker.check_published(complete=at_mark is None)
    checker.check_order()
    checker.check_groups()
    if drained:
        checker.check_handled()
        if plan.replays:
            checker.check_put_back()
    if after == "kill":
        checker.check_repeated()
    if drained:
        checker.check_chain()
    checker.check_with_verify()
    return checker.violations


class _Checker:
    def __init__(
        self, directory: Path, notes: list[Note], plan: Plan, after: After, synced_before_ns: int | None
    ) -> None:
        self.violations: list[Violation] = []
        self._directory = directory
        self._notes = notes
        account = self._account = Account(directory, notes)
        self._plan = plan
        self._after = after
        self._synced_before_ns = synced_before_ns
        self._channels, self._places, self._said = account.channels, account.places, account.said
        self._letters, self._handled = account.letters, account.handled

    @property
    def _exact(self) -> bool:
        """Whether nothing that was acknowledged may be missing."""
        return self._plan.strict or self._after == "kill"

    def _say(self, kind: str, text: str, items: Iterable[object] = ()) -> None:
        named = [str(item) for item in items]
        rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        whole = text + ": " * bool(named) + ", ".join(named[:_NAMED]) + rest
        self.violations.append(Violation(kind, whole, count=len(named) or 1))

    # ---- files

    def check_files(self) -> None:
        """Every line is a whole message, nothing is missing in between, every message is what was published."""
        ids: Counter[str] = Counter()
        for contents in self._channels.values():
            if contents.torn:
                self._say("torn", "lines that are no whole message", contents.torn)
            if contents.seams and not self._may_have_gaps(contents):
                self._say("seam", contents.name, contents.seams)
            if contents.first and (contents.name in _KEPT or not self._plan.compaction):
                self._say("lost", f"{contents.name}: everything below {contents.first}, which nobody may remove")
            if not contents.name.endswith(".replay"):
                ids.update(record.envelope["id"] for record in contents.records)
            if not contents.name.endswith(".dead-letter"):
                garbled = [
                    f"{contents.name} at {each.offset}" for each in contents.records if not is_whole(each.payload)
                ]
                if garbled:
                    self._say("garbled", "messages that are not what was published", garbled)
        twice = [id for id, count in ids.items() if count > 1]
        if twice:
            self._say("doubled", "envelopes with the same id", twice)
        for what, kind in (("garbled", "garbled"), ("complained", "complaint")):
            told = [_told(note) for note in self._notes if note["what"] == what]
            if told:
                self._say(kind, "said by a process", told)

    def _may_have_gaps(self, contents: ChannelContents) -> bool:
        return not self._exact and not any(seam.startswith("overlap") for seam in contents.seams)

    # ---- publishers

    def check_published(self, *, complete: bool) -> None:
        """What was acknowledged is there, nothing is twice, nothing else is there than what was under way."""
        for channel, places in self._places.items():
            doubled = [f"{channel} {name} at {sorted(at)}" for name, at in places.items() if len(at) > 1]
            if doubled:
                self._say("doubled", "messages at several places", doubled)
        both = self._places["in"].keys() & self._places["other"].keys()
        if both:
            self._say("doubled", "messages on both channels", both)
        lost = [f"{channel} {name}" for channel, name in self._required() if name not in self._places[channel]]
        if lost:
            self._say("lost", f"{len(lost)} messages that were acknowledged", lost)
        if self._exact:
            self._check_delivered()
        if complete:
            self._check_unacknowledged()

    def _required(self) -> Iterator[tuple[str, Name]]:
        """What has to be there."""
        if self._exact:
            yield from (each for note in self._notes for each in published(note))
            return
        # Periodic, after a power cut. A process's messages are committed in order: a sync covers all before it.
        lives: dict[tuple[str, int], list[Note]] = defaultdict(list)
        for note in self._notes:
            if note["what"] in ("published", "atomic"):
                lives[note["who"], note["life"]].append(note)
        for notes in lives.values():
            last = max((number for number, note in enumerate(notes) if self._is_synced(note)), default=-1)
            yield from (each for note in notes[: last + 1] for each in published(note))

    def _is_synced(self, note: Note) -> bool:
        before_ns = self._synced_before_ns
        return bool(note["sync"]) or (before_ns is not None and note["t"] < before_ns)

    def _check_delivered(self) -> None:
        """A handler saw it, so it was committed."""
        gone = [
            f"{id} {name}"
            for id, names in self._handled.items()
            for name in names
            if name not in self._places[SUBSCRIPTIONS[id]]
        ]
        if gone:
            self._say("lost", f"{len(gone)} messages that were handled", gone)

    def _check_unacknowledged(self) -> None:
        """A process has one publish under way at a time: of what it was not told, at most that may be there."""
        told: dict[tuple[str, int], set[int]] = defaultdict(set)
        for note in self._notes:
            for _channel, name in published(note):
                told[name.who, name.life].add(name.number)
        untold: dict[tuple[str, int], set[int]] = defaultdict(set)
        for channel in INPUTS:
            for name in self._places[channel]:
                if name.number not in told[name.who, name.life]:
                    untold[name.who, name.life].add(name.number)
        for (who, life), numbers in untold.items():
            below = max(told[who, life], default=-1)
            if min(numbers) <= below or not self._is_one_publish(who, life, numbers):
                self._say("invented", f"{who}/{life} was told up to {below}, and there are", sorted(numbers))

    def _is_one_publish(self, who: str, life: int, numbers: set[int]) -> bool:
        """Whether they stand or fall together. What a removed message said is not known any more."""
        groups = [said.get("group") for number in numbers if (said := self._said.get(Name(who, life, number)))]
        if not groups or len(numbers) == 1:
            return True
        group = groups[0]
        return group is not None and numbers <= set(range(group["first"], group["first"] + group["size"]))

    # ---- order and wholeness

    def check_order(self) -> None:
        """Of one publisher, in each channel; and the chain keeps it; and handlers see it so for the first time."""
        for channel in (*INPUTS, "out", "copy"):
            at = sorted((min(offsets), name) for name, offsets in self._places[channel].items() if offsets)
            self._check_ascending(f"in {channel}", (name for _offset, name in at))
        for id in SUBSCRIPTIONS:
            first: dict[Name, None] = {}
            for note in self._notes:
                if note["what"] == "handled" and note["by"] == id:
                    first.setdefault(Name(*note["of"]))
            self._check_ascending(f"as {id} saw them", first)

    def _check_ascending(self, where: str, names: Iterable[Name]) -> None:
        last: dict[tuple[str, int], int] = {}
        wrong = []
        for who, life, number in names:
            if number <= last.get((who, life), -1):
                wrong.append(f"{who}/{life}/{number} behind {last[who, life]}")
            last[who, life] = number
        if wrong:
            self._say("disorder", where, wrong)

    def check_groups(self) -> None:
        """``atomic`` stands whole or not at all; so do batches, but after a power cut those that were not synced."""
        there = {name for channel in INPUTS for name in self._places[channel]}
        groups = {
            (name.who, name.life, said["group"]["first"], said["group"]["size"]): said["group"]["kind"]
            for name, said in self._said.items()
            if "group" in said and (self._exact or said["group"]["kind"] == "atomic" or said.get("sync"))
        }
        halves = []
        for (who, life, first, size), kind in groups.items():
            missing = [number for number in range(first, first + size) if Name(who, life, number) not in there]
            if missing:
                halves.append(f"{kind} {who}/{life}/{first}-{first + size - 1} without {missing}")
        if halves:
            self._say("half", "transactions that are not whole", halves)

    # ---- subscribers

    def check_handled(self) -> None:
        """Each message at least once, or one dead letter; what always fails has exactly one dead letter."""
        dead = {(letter.by, letter.of): letter for letter in self._letters}
        for (by, name), count in Counter((letter.by, letter.of) for letter in self._letters).items():
            if count > 1:
                self._say("doubled", f"{count} dead letters of {name} by {by}")
        for id, channel in self._plan.subscriptions.items():
            if id == "chain":
                continue
            unhandled = []
            for name in self._places[channel]:
                fails = channel == "in" and name.fails == id
                letter = dead.get((id, name))
                if letter is None and (fails or name not in self._handled[id]):
                    unhandled.append(name)
                elif letter is not None and not fails and not letter.of_a_killed:
                    self._say("given up", f"{name} by {id}: {letter.error}")
            if unhandled:
                self._say("unhandled", f"{len(unhandled)} messages by {id}", unhandled)
        gone = [f"{each.of} by {each.by}" for each in self._letters if not self._is_there(each)]
        if gone and self._exact:
            self._say("lost", "messages that have a dead letter", gone)

    def check_put_back(self) -> None:
        """See `torturing.replays`."""
        for kind, text, items in check_put_back(self._account):
            self._say(kind, text, items)

    def check_repeated(self) -> None:
        """A slot outlives its process: after a kill only the message under way comes again.

        To each part of an id for itself, and as long as it is not divided anew.
        """
        by: dict[tuple[str, str, int, int], list[Note]] = defaultdict(list)
        for note in self._notes:
            if note["what"] in ("handled", "replayed"):
                by[note["by"], note["what"], note.get("division", 0), note.get("part", 0)].append(note)
        for (id, *_), mine in by.items():
            seen: set[Name] = set()
            repeated = []
            for number, note in enumerate(mine):
                name = Name(*note["of"])
                before = mine[number - 1] if number else note
                if name in seen and (before["of"] != note["of"] or before["life"] == note["life"]):
                    repeated.append(f"{name} in life {note['life']}")
                seen.add(name)
            if repeated:
                self._say("repeated", f"{len(repeated)} messages by {id} that it was done with", repeated)

    def _is_there(self, letter: Letter) -> bool:
        return letter.of in self._places.get(SUBSCRIPTIONS.get(letter.by, ""), {})

    def check_chain(self) -> None:
        """Each input gave its output exactly once, or a dead letter and no output."""
        dead = {letter.of: letter for letter in self._letters if letter.by == "chain"}
        inputs, outputs, copies = (self._places[channel] for channel in ("in", "out", "copy"))
        missing, spare, unlike = [], [], []
        for name in inputs:
            letter = dead.get(name)
            if letter is None and (name not in outputs or name.fails == "chain"):
                missing.append(name)
            elif letter is not None and name in outputs:
                spare.append(name)
            elif letter is not None and name.fails != "chain" and not letter.of_a_killed:
                self._say("given up", f"{name} by chain: {letter.error}")
            if (name in outputs and name.number % 5 == 0) != (name in copies):
                unlike.append(name)
        invented = [name for name in (*outputs, *copies) if name not in inputs]
        if missing:
            self._say("chain", f"{len(missing)} inputs without output or dead letter", missing)
        if spare:
            self._say("chain", "outputs of inputs that were given up", spare)
        if unlike:
            self._say("half", "the chain's two outputs, of which one is there", unlike)
        if invented:
            self._say("chain", "outputs whose input is not there", invented)

    # ---- keyop's own view

    def check_with_verify(self) -> None:
        """`keyop verify` finds what was found here, and nothing else; and the directory is at rest."""
        try:
            result = verification.verify(self._directory)
            rest = at_rest.is_at_rest(DataDirectory(self._directory))
        except (OSError, KeyopError) as error:
            self._say("verify", f"raised {type(error).__name__}: {error}")
            return
        damaged = any(contents.torn for contents in self._channels.values())
        seams = any(contents.seams for contents in self._channels.values())
        unexpected = [
            finding
            for finding in result.problems
            if not (finding.kind in ("damaged", "torn") and damaged)
            and not (finding.kind in ("gap", "overlap") and seams)
        ]
        if unexpected:
            self._say("verify", "problems that were not found here", unexpected)
        kinds = {finding.kind for finding in result.problems}
        if damaged and not kinds & {"damaged", "torn"}:
            self._say("verify", "it does not see the damaged lines")
        if seams and not kinds & {"gap", "overlap"}:
            self._say("verify", "it does not see the gap or overlap")
        if result.writer_runs:
            self._say("verify", "a writer runs, though it was told to leave")
        elif not rest:
            self._say("not at rest", "the journal is live after a clean stop")


def _told(note: Note) -> str:
    return f"{note['who']}/{note['life']}: {note.get('text') or (note.get('channel'), note.get('at'))}"
