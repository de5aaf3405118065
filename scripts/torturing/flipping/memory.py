"""Bits of shared memory: what killed processes left of it, found by the next writer.

Publishers and subscribers were killed with messages in their rings that the killed writer had not taken, and cursors
in their slots that no frame holds. One bit of the board, of a port or of a semaphore turns over; then a writer starts,
takes what there is, and leaves.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from keyop.ipc import layout
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset
from keyop.storage.segments import align_offset
from keyop.writer import attached, committer, process
from keyop.writer.log import Log
from torturing.findings import Progress, Report, Violation, keep
from torturing.flipping.directories import Made, Subscriber
from torturing.flipping.pristine import Pristine
from torturing.flipping.reading import Reading
from torturing.shared_memory import shared_memory, sweep_shared_memory

_DEADLINE_S = 20.0
# A ring that cannot be read is closed after a second otherwise, and every bit of every record would take that long.
_POISON_AFTER_S = 0.01
_NAMED = 5

HARMLESS = "nothing"
NOTICED = "nothing, and said"
RING = "the rest of a ring lost, said"
REPEATED = "messages come again"
OUTCOMES = (HARMLESS, NOTICED, RING, REPEATED)


class Place(NamedTuple):
    """A stretch of an object in /dev/shm."""

    path: Path
    start: int
    end: int
    what: str


class Left(NamedTuple):
    """What a writer left of it all."""

    code: int | None
    """Its exit code; None: it had to be killed."""
    said: list[str]
    lines: dict[str, dict[int, bytes]]
    places: dict[Subscriber, int]
    objects: list[str]


def flip_memory(made: Made, seed: int, count: int | None, kept: Path) -> Report:
    """Turn bits of a killed directory's shared memory over, all that mean something or so many of them."""
    report = Report("flips memory")
    chance = random.Random(seed)
    room = _Room(made)
    data_dir = made.path
    try:
        bits = [(place, number) for place in room.regions() for number in range(place.start * 8, place.end * 8)]
        report.notes.append(f"{len(bits):,} bits of board, ports and semaphores")
        if count is not None and count < len(bits):
            bits = sorted(chance.sample(bits, count))
        sound = room.run(None)
        if sound.code != 0 or sound.objects:
            report.add([Violation("rig", f"without a flipped bit: {sound.code}, {sound.objects}, {sound.said}")])
        progress = Progress("flips memory", len(bits))
        outcomes: dict[str, Counter[str]] = {what: Counter() for what in OUTCOMES}
        kinds: Counter[str] = Counter()
        for done, (place, number) in enumerate(bits, 1):
            outcome, found = room.judge(sound, room.run((place.path, number)), place, number)
            outcomes[outcome][place.what] += 1
            for violation in found:
                kinds[violation.kind] += 1
                if kinds[violation.kind] <= _NAMED:
                    report.add([violation], seed, keep(data_dir, kept, f"memory-{violation.kind}-{number}"))
                else:
                    report.violations.append(violation)
            progress.at(done, f"({len(report.violations)} violations)")
    finally:
        room.restore()
        sweep_shared_memory(data_dir)
    report.runs = len(bits)
    places = sorted({place for counts in outcomes.values() for place in counts})
    for what in places:
        parts = [f"{counts[what]:,} {outcome}" for outcome, counts in outcomes.items() if counts[what]]
        report.notes.append(f"memory {what:29} " + "; ".join(parts))
    report.counts.update({outcome: counts.total() for outcome, counts in outcomes.items() if counts})
    return report.finish()


class _Room:
    """The directory, its objects in /dev/shm, and the way back to what they were."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._directory = DataDirectory(made.path)
        self._pristine = Pristine(made.path)
        self._objects = {path: path.read_bytes() for path in shared_memory(made.path)}

    def regions(self) -> list[Place]:
        """What of the objects means something."""
        return [place for path, data in sorted(self._objects.items()) for place in places_of(path, data)]

    def restore(self) -> None:
        """Bring files and objects back."""
        changed = [str(path) for path in self._directory.path.rglob("*") if path.is_file()]
        self._pristine.restore({*changed, *self._pristine.files})
        for path in shared_memory(self._directory.path):
            if path not in self._objects:
                path.unlink()
        for path, data in self._objects.items():
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.pwrite(fd, data, 0)
                os.ftruncate(fd, len(data))
            finally:
                os.close(fd)

    def run(self, bit: tuple[Path, int] | None) -> Left:
        """Have a writer start, with a bit of an object turned over, and leave."""
        self.restore()
        if bit is not None:
            path, number = bit
            with path.open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), bytes([self._objects[path][number >> 3] ^ 1 << (number & 7)]), number >> 3)
        code, said = self._write_once()
        reading = Reading(self._directory)
        places = {subscriber: self._place_of(subscriber) for subscriber in self._made.subscribers}
        objects = [path.name for path in shared_memory(self._directory.path)]
        return Left(code, said, reading.delivered, places, objects)

    def _place_of(self, subscriber: Subscriber) -> int:
        parsed = read_offset(self._directory.offset_file(subscriber.channel, subscriber.id))
        return align_offset(self._directory.channel(subscriber.channel), parsed.value)[0] if parsed is not None else -1

    def _write_once(self) -> tuple[int | None, list[str]]:
        """A writer in a forked child: importing it anew would take ten times as long."""
        reads, writes = os.pipe()
        pid = os.fork()
        if not pid:
            os._exit(_be_writer(self._directory.path, writes))
        os.close(writes)
        heard = bytearray()
        deadline_s = time.monotonic() + _DEADLINE_S
        os.set_blocking(reads, False)
        code = None
        while code is None and time.monotonic() < deadline_s:
            heard += _read(reads)
            ended, status = os.waitpid(pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
            if code is None:
                time.sleep(0.001)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        heard += _read(reads)
        os.close(reads)
        return code, heard.decode(errors="replace").splitlines()

    # ---- judging

    def judge(self, sound: Left, found: Left, place: Place, number: int) -> tuple[str, list[Violation]]:
        """What it has cost."""
        violations: list[Violation] = []

        def say(kind: str, text: str) -> None:
            said = "\n".join(found.said[-12:])
            violations.append(Violation(kind, f"bit {number} ({place.what}) of {place.path.name}: {text}\n{said}"))

        if found.code is None:
            say("hang", f"the writer had not left after {_DEADLINE_S:.0f} s")
        elif found.code:
            say("crash", f"the writer ended with {found.code}")
        if found.objects and found.code == 0:
            say("left", f"in shared memory: {found.objects}")
        for channel, lines in found.lines.items():
            known = set(sound.lines.get(channel, {}).values())
            strange = [line for line in lines.values() if line not in known]
            if strange:
                say("garbled", f"{channel}: {strange[:3]}")
            if len(set(lines.values())) != len(lines):
                say("doubled", f"messages twice on {channel}")
        back = {each for each, before in sound.places.items() if found.places[each] < before}
        for each in sound.places.keys() - back:
            if found.places[each] != sound.places[each]:
                say("skipped", f"{each} goes on at {found.places[each]} instead of {sound.places[each]}")
        warned = any(" info " not in text for text in found.said)
        missing = self._missing(sound, found)
        if missing and all(channel == "out" for channel, _line in missing) and any(each.exactly_once for each in back):
            missing = []  # what an exactly-once handler had passed on went with the step of its cursor: it comes again
        if missing and place.what.startswith(("board", "semaphore")):
            say("lost", f"{len(missing)} messages")
        elif missing and not warned:
            say("silent", f"{len(missing)} messages lost without a word")
        if missing:
            return RING, violations
        return (REPEATED if back else NOTICED if warned else HARMLESS), violations

    @staticmethod
    def _missing(sound: Left, found: Left) -> list[tuple[str, bytes]]:
        there = {line for lines in found.lines.values() for line in lines.values()}
        return [
            (channel, line) for channel, lines in sound.lines.items() for line in lines.values() if line not in there
        ]


def _read(fd: int) -> bytes:
    found = bytearray()
    try:
        while data := os.read(fd, 65536):
            found += data
    except BlockingIOError:
        pass
    return bytes(found)


def _be_writer(data_dir: Path, fd: int) -> int:
    """In the child: a writer that recovers, takes what waits, and leaves; its exit code."""

    def sink(line: str) -> None:
        os.write(fd, line.encode(errors="replace") + b"\n")

    try:
        attached.POISON_AFTER_S = _POISON_AFTER_S
        committer._DRAIN_WAIT_S = 0.002
        for name in ("sync_data", "sync_path"):
            setattr(disk, name, lambda _of: None)  # the power stays on
        options = WriterOptions(str(data_dir))
        options.journal_mb = 0.0625
        return process.run(options, on_demand=True, log=Log(sink=sink), once=True)
    except BaseException:
        sink(traceback.format_exc())
        return 1


def places_of(path: Path, data: bytes) -> Iterator[Place]:
    """What of an object means something; the rest is zeros that nobody reads."""
    words = memoryview(data).cast("I") if len(data) % 4 == 0 else None
    if path.name.startswith("sem."):
        yield Place(path, 0, len(data), "semaphore")
    elif words is not None and words[layout.MAGIC] == layout.BOARD_MAGIC:
        yield Place(path, 0, layout.BOARD_HEADER_BYTES, "board header")
        size = layout.CHANNEL_WORDS * 4
        for at in range(layout.BOARD_HEADER_BYTES, len(data), size):
            if any(data[at : at + size]):
                yield Place(path, at, at + size, "board channel")
    elif words is not None and words[layout.MAGIC] == layout.PORT_MAGIC:
        yield Place(path, 0, layout.SLOTS_BYTES, "port header")
        for number in range(layout.SLOTS_A_PAGE):
            at = layout.SLOTS_BYTES + number * layout.SLOT_BYTES
            if any(data[at : at + layout.SLOT_BYTES]):
                yield Place(path, at, at + layout.SLOT_BYTES, "slot of a subscription")
        head, committed = words[layout.HEAD], words[layout.COMMITTED]
        if head != committed:
            yield Place(path, layout.RING_BYTES + committed, layout.RING_BYTES + head, "ring, not taken")
