"""What must hold, after each start of a writer and at the end."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from torturing.models.commit_path.chain import OUTPUT
from torturing.models.commit_path.channel import read_channel, segments_of
from torturing.models.commit_path.cursors import read_offset
from torturing.models.commit_path.entries import Key
from torturing.models.commit_path.line import Found, Line
from torturing.models.commit_path.subscriber import DEAD_LETTERS, INPUT

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World

CHAIN: Key = (INPUT, "chain")
PLAIN: Key = (INPUT, "plain")


class Checker:
    """Compares the files with the ledger."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._channels: dict[str, list[Found]] = {}
        self._present: Counter[Line] = Counter()
        self._in_rings: set[Line] = set()
        # What a power cut took: it must not come back.
        self._gone: set[Line] = set()
        # Where a power cut has left something that is no whole line.
        self._spoilt: set[tuple[str, int]] = set()

    def check(self, *, by_power: bool) -> None:
        """After a start. ``by_power``: the last writer's end was a power cut."""
        self._read()
        self._check_lines(by_power)
        self._check_lost(by_power)
        self._check_order()
        self._check_whole()
        self._check_gaps()
        self._check_rings()
        self._check_cursors()
        self._note_what_is_gone(by_power)

    def check_end(self) -> None:
        """Everybody is idle, and the writer has left."""
        self._read()
        self._check_lost(by_power=False)
        ledger = self._ledger
        mode = self._world.mode
        outputs = self._made_of(OUTPUT)
        letters = self._made_of(DEAD_LETTERS)
        for found in self._channels.get(INPUT, []):
            line = found.line
            if line is None:
                continue
            if mode.cursors and not self._is_done_with(line, letters):
                ledger.fail("lost", f"{line} was never handled")
            if mode.exactly_once and outputs[line] != 1 and line not in ledger.excused_outputs:
                ledger.fail("doubled" if outputs[line] else "lost", f"{line} has {outputs[line]} outputs")

    def check_spill_files(self) -> None:
        """Nobody is attached, and the journal is free."""
        left = list(self._world.disk.spill.names)
        if left:
            self._ledger.fail("spill", f"spill files {left} are left, and no ring has their id")

    # ---- lines

    def _read(self) -> None:
        channels = self._world.disk.channels
        self._channels = {str(name): list(read_channel(channels.directory(str(name)))) for name in channels.names}
        self._present = Counter(
            found.line for channel in self._channels.values() for found in channel if found.line is not None
        )
        self._in_rings = {
            line for port in self._world.ports for transaction in port.waiting() for line in transaction.lines
        }

    def _check_lines(self, by_power: bool) -> None:
        ledger = self._ledger
        may_be_spoilt = by_power and (self._world.mode.periodic or ledger.was_damaged)
        for channel, lines in self._channels.items():
            for found in lines:
                line = found.line
                if found.spoilt and may_be_spoilt:
                    self._spoilt.add((channel, found.begin))
                elif found.spoilt and (channel, found.begin) not in self._spoilt and not (line and line.foreign):
                    ledger.fail("torn", f"{channel}: from {found.begin} to {found.behind} stands no whole line")
                if line is None:
                    continue
                if self._present[line] > 1:
                    ledger.fail("doubled", f"{line} stands {self._present[line]} times in {channel}")
                if line in self._gone:
                    ledger.fail("doubled", f"{line} was gone after a power cut and has come back")
                place = ledger.places.get(line)
                if place is not None and place != (channel, found.at) and channel not in ledger.conflicts:
                    ledger.fail("moved", f"{line} stands in {channel} at {found.at}, its frame said {place}")

    def _check_lost(self, by_power: bool) -> None:
        ledger = self._ledger
        needed = ledger.durable if by_power else ledger.durable | ledger.acknowledged
        for line in needed:
            if line not in self._present and line not in self._in_rings and line not in ledger.removed | ledger.excused:
                ledger.fail("lost", f"{line} was {'synced' if line in ledger.durable else 'acknowledged'}")

    def _check_order(self) -> None:
        for channel, lines in self._channels.items():
            last: dict[str, int] = {}
            for found in lines:
                line = found.line
                if line is None or channel == DEAD_LETTERS:
                    continue
                if last.get(line.author, 0) > line.number:
                    self._ledger.fail("disorder", f"{channel}: {line} stands behind number {last[line.author]}")
                last[line.author] = line.number

    def _check_whole(self) -> None:
        ledger = self._ledger
        for lines in ledger.whole:
            rest = [line for line in lines if line not in ledger.removed and line not in ledger.excused]
            count = sum(1 for line in rest if self._present[line])
            if 0 < count < len(rest):
                ledger.fail("half", f"of the transaction {lines} only {count} lines stand")

    def _check_gaps(self) -> None:
        """Where nothing may be lost, each segment begins where the one before it ends."""
        mode = self._world.mode
        if mode.periodic or mode.foreign or mode.damage or mode.compaction:
            return
        for channel in self._channels:
            segments = segments_of(self._world.disk.channels.directory(channel))
            while segments and not len(segments[-1][1]):
                segments.pop()  # those at the end are looked at when the writer opens the channel
            for (start, file), (following, _) in pairwise(segments):
                if start + len(file) != following:
                    self._ledger.fail("gap", f"{channel}: {start + len(file)} is followed by {following}")

    def _check_rings(self) -> None:
        for line in self._in_rings:
            if self._present[line]:
                self._ledger.fail("doubled", f"{line} stands in a file and in a ring")

    def _note_what_is_gone(self, by_power: bool) -> None:
        """After a start all that stands is synced, and what a power cut took is no longer owed."""
        ledger = self._ledger
        ledger.durable.update(self._present)
        if by_power:
            gone = {line for line in ledger.published if line not in self._present and line not in self._in_rings}
            gone -= ledger.removed
            self._gone |= gone
            ledger.acknowledged -= gone
            ledger.published -= gone
            ledger.whole = [lines for lines in ledger.whole if not gone.intersection(lines)]

    # ---- cursors

    def _check_cursors(self) -> None:
        mode = self._world.mode
        if mode.cursors:
            self._check_plain()
        if mode.exactly_once:
            self._check_chain()

    def _cursor(self, key: Key) -> int | None:
        cursor = self._world.writer.cursors.by_key.get(key)
        return cursor.offset if cursor is not None else read_offset(self._world, key)

    def _check_plain(self) -> None:
        ledger = self._ledger
        cursor = self._cursor(PLAIN)
        if PLAIN in ledger.forgotten:
            if cursor is not None:
                ledger.fail("forgotten", f"{PLAIN} was forgotten, and has the offset {cursor} again")
            return
        self._check_not_evicted(PLAIN, cursor)
        letters = self._made_of(DEAD_LETTERS)
        for found in self._channels.get(INPUT, []):
            line = found.line
            if cursor is None or line is None or found.begin >= cursor:
                continue
            if not self._is_done_with(line, letters):
                ledger.fail("lost", f"the cursor of {PLAIN} is {cursor}, and {line} at {found.begin} was never handled")

    def _is_done_with(self, line: Line, letters: Counter[Line]) -> bool:
        ledger = self._ledger
        # A removed segment may come back with a power cut; nobody needs it.
        return line in ledger.handled or line in ledger.skipped or line in ledger.removed or bool(letters[line])

    def _check_chain(self) -> None:
        ledger = self._ledger
        self._check_not_evicted(CHAIN, self._cursor(CHAIN))
        cursor = self._cursor(CHAIN) or 0
        outputs = self._made_of(OUTPUT)
        for found in self._channels.get(INPUT, []):
            line = found.line
            if line is None or line in ledger.excused_outputs:
                continue
            wanted = 1 if found.begin < cursor else 0
            if outputs[line] != wanted:
                kind = "doubled" if outputs[line] > wanted else "lost"
                ledger.fail(
                    kind, f"the cursor of {CHAIN} is {cursor}, and {line} at {found.begin} has {outputs[line]} outputs"
                )

    def _check_not_evicted(self, key: Key, cursor: int | None) -> None:
        segments = segments_of(self._world.disk.channels.directory(INPUT))
        if cursor is not None and segments and cursor < segments[0][0]:
            self._ledger.fail("evicted", f"the cursor of {key} is {cursor}, the channel begins with {segments[0][0]}")

    def _made_of(self, channel: str) -> Counter[Line]:
        return Counter(
            found.line.of
            for found in self._channels.get(channel, [])
            if found.line is not None and found.line.of is not None
        )

    def offsets(self, channel: str) -> list[int]:
        """Where the lines of a channel begin now."""
        return [found.begin for found in read_channel(self._world.disk.channels.directory(channel))]
