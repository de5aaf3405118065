"""What processes were told, and what they did: the checks of the files are made against it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import read_channel, segments_of
from torturing.models.commit_path.entries import Append, Key
from torturing.models.commit_path.journal import NAMES, Frame, JournalContents
from torturing.models.commit_path.line import Line, read_lines
from torturing.models.commit_path.memory import Port

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


class Ledger:
    """Notes of one run. What a note finds wrong by itself is a violation at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        # Lines whose publisher has been told that they stand, and those that no power cut may take.
        self.acknowledged: set[Line] = set()
        self.durable: set[Line] = set()
        # Every line that was handed over, and those that are one transaction.
        self.published: set[Line] = set()
        self.whole: list[list[Line]] = []
        self.places: dict[Line, tuple[str, int]] = {}
        self.foreign: list[Line] = []
        # Of the plain subscriber: what it has handled or given up, and what it may see again.
        self.handled: dict[Line, int] = {}
        self.dead: set[Line] = set()
        # What a command let it pass over.
        self.skipped: dict[Line, int] = {}
        self.may_repeat: set[Line] = set()
        self._under_way: Line | None = None
        # Counts what subscribers do, to tell what was before a command.
        self._now = 0
        self._asked_at = 0
        self._died_at: dict[Key, tuple[Line, int]] = {}
        self.forgotten: set[Key] = set()
        self._begins_anew: set[Key] = set()
        # Lines that may be lost with a damaged frame, inputs that may have several outputs or letters.
        self.excused: set[Line] = set()
        self.excused_outputs: set[Line] = set()
        self.removed: set[Line] = set()
        self.conflicts: set[str] = set()
        self.power_was_cut = False
        self.was_damaged = False

    def fail(self, kind: str, text: str) -> None:
        """A promise is broken."""
        self._world.say("!!! {}: {}", kind, text)
        self.violations.append((kind, text))

    # ---- publishing

    def note_published(self, lines: list[Line], *, whole: bool = False) -> None:
        """A transaction was put into a ring."""
        self.published.update(lines)
        if whole and len(lines) > 1:
            self.whole.append(lines)

    def note_acknowledged(self, lines: list[Line], *, durable: bool) -> None:
        """Publish has returned."""
        self.acknowledged.update(lines)
        self.counts["acknowledged"] += len(lines)
        if durable:
            self.durable.update(lines)

    def note_refused(self, lines: list[Line], code: str) -> None:
        """Publish has raised."""
        self.fail("refused", f"nothing was wrong with {lines}, and it is refused: {code}")

    def note_foreign(self, line: Line) -> None:
        """Another program has written a line, and synced it."""
        self.foreign.append(line)
        self.durable.add(line)

    # ---- the journal

    def note_frame(self, frame: Frame) -> None:
        """A frame is about to be written."""
        for entry in frame.entries:
            if type(entry) is Append:
                for found in read_lines(entry.cells):
                    assert found.line is not None
                    self.places[found.line] = (entry.channel, entry.offset + found.at)

    def note_synced(self, frames: list[Frame]) -> None:
        """The journal believes that these are on the device: nothing that they hold may be lost any more."""
        for frame in frames:
            self.durable.update(_lines_of(frame))

    def note_damage(self, frame: Frame) -> None:
        """A frame was made unreadable: it may be lost, nothing else."""
        self.was_damaged = True
        self.excused.update(_lines_of(frame))

    def note_reported_lost(self, first: int, behind: int) -> None:
        """Recovery says that frames are lost which had been synced."""
        if not self.was_damaged:
            self.fail("lost", f"recovery says that frames {first} to {behind - 1} are damaged, and none was")

    def note_gap(self, channel: str, offset: int) -> None:
        """Recovery begins a segment beyond the end of the one before."""
        if not self.was_damaged:
            self.fail("gap", f"{channel}: nothing was damaged, and recovery leaves a gap before {offset}")

    def note_zeros(self, channel: str, offset: int) -> None:
        """Recovery writes beyond the end of a segment."""
        self.fail("torn", f"{channel}: recovery fills what is missing before {offset} with zeros")

    def note_conflict(self, channel: str) -> None:
        """Recovery has found another program's lines where ours should stand: ours stand elsewhere from here on."""
        self.conflicts.add(channel)
        self._died_at.clear()

    def note_moved_back(self, *, conflict: bool) -> None:
        """A cursor had to move back, and recovery has said so."""
        self.may_repeat.update(self.handled, self.dead)
        if conflict:
            self.excused_outputs.update(self.published, self.foreign)

    def note_power_cut(self) -> None:
        """Slots and rings are gone: subscribers begin again where the files say."""
        self.power_was_cut = True
        self.counts["power cuts"] += 1
        self.may_repeat.update(self.handled)
        self._died_at.clear()
        self._under_way = None

    def note_at_rest(self) -> None:
        """The writer has left: the journal owes nothing."""
        for name in NAMES:
            if JournalContents(self._world, self._world.disk.journal, name).live:
                self.fail("journal", f"the writer has left, and file {name} is not free")
        for channel in self._world.disk.channels.names:
            found = read_channel(self._world.disk.channels.directory(str(channel)))
            self.durable.update(item.line for item in found if item.line is not None)

    def note_removed(self, channel: str, start: int) -> None:
        """A segment is removed because everybody has consumed it."""
        self.counts["segments removed"] += 1
        segments = dict(segments_of(self._world.disk.channels.directory(channel)))
        self.removed.update(found.line for found in read_lines(segments[start].cells) if found.line is not None)

    # ---- subscribers

    def note_asked(self, key: Key) -> None:
        """A subscription is asked for: from here on its id is known again."""
        self._asked_at = self.now()
        if key in self.forgotten:
            self.forgotten.discard(key)
            self._begins_anew.add(key)

    def note_granted(self, key: Key, offset: int, first: int) -> None:
        """A subscription begins at an offset; the channel's first one is ``first``."""
        if key in self._begins_anew and offset != first:
            self.fail("forgotten", f"{key} was forgotten, and begins at {offset} instead of {first}")
        self._begins_anew.discard(key)

    def note_begun(self, key: Key, line: Line, attempt: int) -> None:
        """A handler is about to be run."""
        died_at, attempts = self._died_at.pop(key, (None, 0))
        if died_at is line and attempt <= attempts:
            self.fail("attempts", f"{key}: a process died in attempt {attempts} at {line}, and this is {attempt}")
        if key[1] != "plain":
            return
        # Where a cursor has moved back, it may have been for a line whose letter was under way.
        done = line in self.handled or (line in self.dead and not self.conflicts)
        if done and line not in self.may_repeat:
            self.fail("repeated", f"{key} has handled {line} and gets it again")
        self._under_way = line

    def note_died_in_handler(self, key: Key, line: Line, attempt: int) -> None:
        """It killed its process."""
        self._died_at[key] = (line, attempt)

    def note_handled(self, line: Line) -> None:
        """The plain subscriber's handler has returned."""
        self.handled[line] = self.now()
        self.may_repeat.discard(line)

    def note_dead(self, line: Line) -> None:
        """The plain subscriber was told that its dead letter stands."""
        self.dead.add(line)

    def note_saved(self) -> None:
        """Its slot says that it is behind that message."""
        self._under_way = None

    def note_killed(self, port: Port) -> None:
        """A process was killed: the message that its slot names comes again."""
        if port.owner.startswith("plain") and port.slot is not None and self._under_way is not None:
            self.may_repeat.add(self._under_way)
            self._under_way = None

    def now(self) -> int:
        """Later than everything before."""
        self._now += 1
        return self._now

    def note_command(self) -> int:
        """The plain subscriber's cursor may be set back or forgotten from now on."""
        self.may_repeat.update(self.handled, self.dead)
        self._died_at.clear()
        return self.now()

    def note_setting(self, channel: str, offset: int) -> int:
        """A command asks to set its cursor; the time when it did."""
        asked_at = self._asked_at = self.note_command()
        self.forgotten.clear()
        self._begins_anew.clear()
        found = read_channel(self._world.disk.channels.directory(channel))
        self.skipped.update((item.line, asked_at) for item in found if item.line is not None and item.begin < offset)
        return asked_at

    def note_set(self, channel: str, offset: int, asked_at: int) -> None:
        """It was told that it is: from there on everything has to come again, unless it has done so meanwhile."""
        for found in read_channel(self._world.disk.channels.directory(channel)):
            if found.line is not None and found.begin >= offset:
                if self.handled.get(found.line, 0) < asked_at:
                    self.handled.pop(found.line, None)
                    self.dead.discard(found.line)
                self.skipped.pop(found.line, None)

    def note_forgotten(self, key: Key, asked_at: int) -> None:
        """The id is no more; who subscribes under it begins with the first message. Somebody may have done so."""
        if self._asked_at < asked_at:
            self.forgotten.add(key)
        self.handled = {line: at for line, at in self.handled.items() if at > asked_at}
        self.dead &= self.handled.keys()
        self.skipped = {line: at for line, at in self.skipped.items() if at > asked_at}


def _lines_of(frame: Frame) -> list[Line]:
    lines = []
    for entry in frame.entries:
        if type(entry) is Append:
            lines += [found.line for found in read_lines(entry.cells) if found.line is not None]
    return lines
