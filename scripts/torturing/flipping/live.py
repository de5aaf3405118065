"""Bits of shared memory while it is used: a writer runs, a process publishes and handles, and a word changes by itself.

Nothing may hang or crash, and what was published is handled. A damaged word of the board is put right by the writer
within a tick. One of the process's own port may cost it its ring: then it is told.
"""

from __future__ import annotations

import mmap
import os
import random
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from keyop import Message, Messenger
from keyop.errors import KeyopError
from torturing.findings import Progress, Report, Violation
from torturing.flipping.child import Child
from torturing.flipping.directories import OPTIONS, TYPE
from torturing.flipping.memory import Place, places_of
from torturing.shared_memory import shared_memory, sweep_shared_memory
from torturing.writer_process import WriterProcess, until

_DEADLINE_S = 8.0
_TICK_MS = 100.0

AT_ONCE = "nothing"
LATE = "a tick late"
TOLD = "the process is told to restart"
OUTCOMES = (AT_ONCE, LATE, TOLD)


def flip_live(data_dir: Path, seed: int, count: int | None) -> Report:
    """Turn bits of the board and of a port over, all of them or so many, one after the other, and back."""
    report = Report("flips live")
    chance = random.Random(seed)
    outcomes: dict[str, Counter[str]] = {what: Counter() for what in OUTCOMES}
    with WriterProcess(data_dir, sync_interval_ms=50, **OPTIONS) as writer:
        writer.wait_until_open()
        talk = _Talk(data_dir)
        bits = [(place.what, at) for place in talk.places() for at in range(place.start * 8, place.end * 8)]
        report.notes.append(f"{len(bits):,} bits of a board and a port in use")
        if count is not None and count < len(bits):
            bits = sorted(chance.sample(bits, count))
        progress = Progress(report.attack, len(bits))
        for done, (what, at) in enumerate(bits, 1):
            talk.flip(what, at)
            outcome, trouble = talk.exchange()
            talk.flip_back(what, at)
            if trouble and (what.startswith("board") or outcome != TOLD):
                report.add([Violation("hang", f"bit {at} ({what}): {trouble}")], seed)
            outcomes[outcome][what] += 1
            if writer.process.poll() is not None:
                report.add([Violation("crash", f"bit {at} ({what}): the writer ended")], seed)
                break
            if outcome == TOLD:
                talk.close()
                talk = _Talk(data_dir)
            progress.at(done, f"({len(report.violations)} violations)")
        talk.close()
        if writer.process.poll() is None and writer.stop():
            report.add([Violation("crash", f"the writer left with {writer.process.returncode}")], seed)
    sweep_shared_memory(data_dir)
    report.runs = sum(counts.total() for counts in outcomes.values())
    for what in sorted({what for counts in outcomes.values() for what in counts}):
        parts = [f"{counts[what]:,} {outcome}" for outcome, counts in outcomes.items() if counts[what]]
        report.notes.append(f"live {what:29} " + "; ".join(parts))
    report.counts.update({outcome: counts.total() for outcome, counts in outcomes.items() if counts})
    return report.finish()


class _Talk:
    """A process that publishes and handles on request, and the memory that it shares with the writer."""

    def __init__(self, data_dir: Path) -> None:
        before = set(shared_memory(data_dir))
        self._child = Child(_converse, data_dir)
        self._number = 0
        self._child.expect("ready")
        paths = [path for path in shared_memory(data_dir) if not path.name.startswith("sem.")]
        ours = [path for path in paths if path not in before or path.name.endswith("-b")]
        self._maps: dict[Path, mmap.mmap] = {}
        for path in ours:
            with path.open("r+b") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0)
        self._places = [place for path, memory in self._maps.items() for place in places_of(path, memory[:])]
        self._flipped = 0

    def places(self) -> list[Place]:
        """What of it means something."""
        return [place for place in self._places if place.what != "ring, not taken"]

    def _memory(self, what: str) -> mmap.mmap:
        place = next(place for place in self._places if place.what == what)
        return self._maps[place.path]

    def flip(self, what: str, at: int) -> None:
        """Turn a bit over."""
        memory = self._memory(what)
        self._flipped = memory[at >> 3] ^ 1 << (at & 7)
        memory[at >> 3] = self._flipped

    def flip_back(self, what: str, at: int) -> None:
        """Unless somebody has stored something else there."""
        memory = self._memory(what)
        mask = 1 << (at & 7)
        if memory[at >> 3] & mask == self._flipped & mask:
            memory[at >> 3] ^= mask

    def exchange(self) -> tuple[str, str]:
        """Have it publish a message and handle it; what came of it, and the error."""
        self._number += 1
        began_s = time.monotonic()
        self._child.say(str(self._number))
        try:
            answer = self._child.hear()
        except (TimeoutError, RuntimeError) as error:
            return TOLD if isinstance(error, RuntimeError) else AT_ONCE, str(error)
        if answer[0] == "told":
            return TOLD, ""
        if answer[0] != "handled":
            return AT_ONCE, answer[1]
        return LATE if (time.monotonic() - began_s) * 1000 > _TICK_MS else AT_ONCE, ""

    def close(self) -> None:
        """End the process; the writer sweeps its port."""
        self._child.kill()
        for memory in self._maps.values():
            memory.close()


def _converse(pipe: Any, data_dir: Path) -> None:
    import logging

    logging.getLogger("keyop").setLevel(logging.CRITICAL)
    messenger = Messenger(data_dir, name="talk")
    seen: set[int] = set()

    def handle(message: Message[Any]) -> None:
        seen.add(message.payload["n"])

    messenger.subscribe("talk", f"s{os.getpid()}", handle)
    messenger.publish("talk", {"n": 0}, payload_type=TYPE)
    pipe.send("ready")
    while True:
        number = int(pipe.recv())
        try:
            messenger.publish("talk", {"n": number}, payload_type=TYPE, timeout=_DEADLINE_S)
            until(lambda number=number: number in seen, f"{number} is handled", _DEADLINE_S)  # type: ignore[misc]
            pipe.send(("handled", ""))
        except KeyopError as error:
            pipe.send(("told" if "ring" in str(error) else "failed", f"{type(error).__name__}: {error}"))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
