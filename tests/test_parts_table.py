"""The writer's table under any order of moves, frames, files, crashes and divisions: no part is ever ahead of itself.

What stands here is what a part has finished; the table, the frames and the files may only be behind it. And nobody
goes by an offset that is beyond what every part has finished.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyop.ipc.slot import SlotCursor
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset, write_parts
from keyop.storage.offsets import read_offset
from keyop.storage.parts import places, read_parts
from keyop.storage.recovery import Recovered, _take_cursors
from keyop.writer.cursor import Subscriber
from keyop.writer.cursors import Cursors
from keyop.writer.log import Log

KEY = (b"c", b"s")


class Parts(RuleBasedStateMachine):
    """One id, with offsets that only grow and no channel: a message is a byte long."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.directory = DataDirectory(self.place / "data")
        self.directory.make()
        # The journal: frames that no checkpoint has freed.
        self.frames: list[bytes] = []
        # Last words of parts of earlier divisions: how many there were, which, and what.
        self.left: list[tuple[int, int, SlotCursor]] = []
        self.cursors = Cursors(self.directory, Log(sink=lambda _line: None))

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @property
    def subscriber(self) -> Subscriber:
        return self.cursors.by_key[KEY]

    def files(self) -> tuple[int, ...]:
        parsed = read_offset(self.directory.offset_file("c", "s"))
        assert parsed is not None
        assert not parsed.damaged
        return places(parsed.value, read_parts(self.directory.parts_file("c", "s")))[0]

    # ---- what the parts do

    @initialize(count=st.integers(1, 5))
    def begin(self, count: int) -> None:
        self.cursors.add(KEY, [0] * count)
        # Of each part: how far it has come, and how many moves that took.
        self.done = [(0, 0)] * count
        self.commit()
        self.file()

    @rule(part=st.integers(0, 4), step=st.integers(1, 9))
    def go_on(self, part: int, step: int) -> None:
        """The part handles messages, and stores that in its slot."""
        part %= len(self.done)
        offset, moves = self.done[part]
        self.done[part] = offset + step, moves + 1

    # ---- what the writer does

    @rule(part=st.integers(0, 4))
    def look(self, part: int) -> None:
        """The writer looks at one slot."""
        part %= len(self.done)
        offset, moves = self.done[part]
        self.subscriber.cursors[part].adopt(SlotCursor(moves, offset, 0))

    @rule()
    def commit(self) -> None:
        self.frames.append(self.subscriber.frame_entry())
        self.subscriber.apply()
        self.cursors.unfiled.add(self.subscriber)

    @rule()
    def file(self) -> None:
        assert self.cursors.file() is None

    @rule()
    def checkpoint(self) -> None:
        self.file()
        self.cursors.unsynced_files.clear()
        self.frames.clear()

    @rule(count=st.integers(1, 5))
    def divide(self, count: int) -> None:
        """All parts have gone, the last words of their slots were heard, and another number comes."""
        if count == len(self.done):
            return
        for part in range(len(self.done)):
            self.look(part)
        self.left += [
            (len(self.done), part, SlotCursor(moves, offset, 0)) for part, (offset, moves) in enumerate(self.done)
        ]
        divided = self.cursors.divide(self.subscriber, count)
        assert [cursor.planned for cursor in divided.cursors] == [min(offset for offset, _ in self.done)] * count
        self.done = [(divided.planned, divided.cursors[0].moves)] * count
        self.commit()

    @rule()
    def hear_the_dead(self) -> None:
        """Ports that were buried and not swept yet say what parts of an earlier division have come to."""
        for count, part, claim in self.left:
            if count == len(self.done):
                assert not self.subscriber.cursors[part].adopt(claim)

    @rule(half=st.sampled_from(["nothing", "parts", "offset", "torn"]), power=st.booleans())
    def crash(self, half: str, power: bool) -> None:
        """The writer dies, perhaps while it writes the files; the frames that no checkpoint has freed are replayed.

        A power cut takes the slots, too: then what is committed stands.
        """
        offsets = [cursor.offset for cursor in self.subscriber.cursors]
        if half == "parts" and len(offsets) > 1:
            write_parts(self.subscriber.parts_path, offsets)
        elif half == "offset":
            write_offset(self.subscriber.path, min(offsets))
        elif half == "torn" and self.frames and len(offsets) > 1:
            self.subscriber.parts_path.write_bytes(b"0000")  # a power cut
        recovered = Recovered()
        for frame in self.frames:
            (item,) = entry.decode(frame, 0, len(frame))
            _take_cursors(item, recovered)
        filed = self.files()
        self.cursors = Cursors(self.directory, Log(sink=lambda _line: None))
        if KEY in recovered.cursors:
            self.cursors.restore(KEY, recovered.cursors[KEY])
        else:
            # Without frames the files are what a checkpoint has synced.
            assert len(filed) == len(self.done)
            self.cursors.add(KEY, filed)
        if power:
            assert [cursor.offset for cursor in self.subscriber.cursors] == offsets
            self.done = [(cursor.offset, cursor.moves) for cursor in self.subscriber.cursors]
            self.left.clear()
        for part in range(len(self.done)):
            self.look(part)
        self.commit()
        assert [(cursor.offset, cursor.moves) for cursor in self.subscriber.cursors] == self.done

    # ---- what always holds

    @invariant()
    def nothing_is_ahead(self) -> None:
        if not hasattr(self, "done"):
            return
        assert len(self.subscriber.cursors) == len(self.done)
        for cursor, (offset, moves) in zip(self.subscriber.cursors, self.done, strict=True):
            assert cursor.offset <= cursor.planned <= offset
            assert cursor.moves <= moves
        least = min(offset for offset, _ in self.done)
        parsed = read_offset(self.directory.offset_file("c", "s"))
        assert parsed is not None
        assert parsed.value <= self.subscriber.offset <= least


TestParts = Parts.TestCase
TestParts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
