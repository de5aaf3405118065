"""A few bits with real processes: a writer starts, every subscriber goes on, a new one reads all from the beginning.

What they get has to be what the writer's start and the reader gave in this process, see `torturing.flipping.files`.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import traceback
from pathlib import Path
from typing import Any

from keyop import Message, Messenger
from keyop.errors import OffsetDamaged
from keyop.storage.directory import DataDirectory
from torturing.findings import Progress, Report, Violation, keep
from torturing.flipping.bits import Bit, regions, some_bits
from torturing.flipping.child import Child
from torturing.flipping.directories import OPTIONS, Made, Subscriber
from torturing.flipping.judging import State, start
from torturing.flipping.pristine import Pristine
from torturing.flipping.starting import watched_disk
from torturing.shared_memory import shared_memory, sweep_shared_memory
from torturing.writer_process import WriterProcess, WriterSilent

_DRAIN_S = 20.0
_LATE = "late"

Got = dict[str, list[tuple[str, str]]]
"""``channel/id`` → (message's id, payload) in the order in which they were handled."""


def flip_before_processes(directories: list[Made], place: Path, seed: int, count: int, kept: Path) -> Report:
    """Turn one bit over before each start."""
    report = Report("flips processes")
    chance = random.Random(seed)
    progress = Progress(report.attack, count)
    for number in range(count):
        made = directories[number % len(directories)]
        room = place / "run"
        shutil.copytree(made.path, room)
        (bit,) = some_bits(_worth_it(room), chance, 1)
        Pristine(room).flip(bit.region.path, bit.number)
        try:
            expected = _expected(made, room, place / "expected")
            report.recovered_ms.append(_start(made, room, bit, expected, report))
        except (WriterSilent, TimeoutError, RuntimeError) as error:
            report.add(
                [Violation("hang", f"{made.name}: {bit}: {error}")], seed, keep(room, kept, f"flips-real-{number}")
            )
        finally:
            sweep_shared_memory(room)
            shutil.rmtree(room)
        report.runs += 1
        progress.at(number + 1, f"({len(report.violations)} violations)")
    return report.finish()


def _worth_it(room: Path) -> list[Any]:
    """Not the zeros: they are a large part of the journal, and cost nothing."""
    return [region for region in regions(DataDirectory(room)) if "free" not in region.what]


def _expected(made: Made, room: Path, place: Path) -> State:
    shutil.copytree(room, place)
    try:
        with watched_disk():
            return start(DataDirectory(place), made.subscribers)
    finally:
        shutil.rmtree(place)


def _start(made: Made, room: Path, bit: Bit, expected: State, report: Report) -> float:
    """Have them all run; the milliseconds until the writer was open."""
    violations: list[tuple[str, str]] = []
    with WriterProcess(room, **OPTIONS) as writer:
        opened_ms = writer.wait_until_open() * 1000
        with Child(_read_all, room, made.subscribers) as reader:
            got, refused = reader.hear()
            reader.join()
        code = writer.stop()
    if code:
        violations.append(("crash", f"the writer ended with {code}"))
    crashed = [record for record in writer.records if record["event"] in ("crash", "traceback")]
    if crashed:
        violations.append(("crash", "\n".join(str(record["line"]) for record in crashed)))
    wanted = _wanted(made, expected)
    violations += [
        ("differs", f"{name} got {got.get(name)} instead of {wanted.get(name)}")
        for name in sorted(wanted.keys() | got.keys())
        if got.get(name) != wanted.get(name)
    ]
    if sorted(refused) != sorted(str(each) for each, place in expected.places.items() if place is None):
        violations.append(("differs", f"refused: {refused}"))
    left = shared_memory(room)
    if left:
        violations.append(("left", f"in shared memory: {left}"))
    report.add([Violation(kind, f"{made.name}: {bit}: {text}") for kind, text in violations], report.runs)
    return opened_ms


def _wanted(made: Made, expected: State) -> Got:
    wanted: Got = {}
    subscribers = [(Subscriber(channel, _LATE), 0) for channel in expected.reading.delivered]
    for each, place in [*subscribers, *expected.places.items()]:
        if place is not None:
            lines = sorted(expected.reading.delivered.get(each.channel, {}).items())
            wanted[str(each)] = [_named(line) for offset, line in lines if offset >= place]
    return wanted


def _named(line: bytes) -> tuple[str, str]:
    from keyop.messages.envelope import Envelope, decode_line

    envelope = decode_line(line)
    assert isinstance(envelope, Envelope)
    return envelope.id, json.dumps(envelope.payload)


def _read_all(pipe: Any, data_dir: Path, subscribers: list[Subscriber]) -> None:
    """The process: old subscribers, and a new one for each channel."""
    logging.getLogger("keyop").setLevel(logging.CRITICAL)
    got: Got = {}
    refused = []
    try:
        messenger = Messenger(data_dir, name="reader")
        channels = sorted(path.name for path in (data_dir / "channels").iterdir())
        for each in [*subscribers, *(Subscriber(channel, _LATE) for channel in channels)]:
            handle = got.setdefault(str(each), [])

            def take(message: Message[Any], handle: list[tuple[str, str]] = handle) -> None:
                handle.append((message.id, json.dumps(message.payload)))

            try:
                messenger.subscribe(each.channel, each.id, take, start="earliest", exactly_once=each.exactly_once)
            except OffsetDamaged:
                refused.append(str(each))
                del got[str(each)]
        if not messenger.drain(_DRAIN_S):
            raise TimeoutError(f"not drained: {messenger.stats()}")
        messenger.close()
    except BaseException:
        pipe.send(traceback.format_exc())
        raise
    pipe.send((got, refused))
