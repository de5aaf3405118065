"""Two processes share the work of an id, and they and the writer are killed again and again."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from child import Child, eventually, kill_writer
from inbox import DEADLINE_S
from test_parts import part_of
from writers import TINY, Writer

from keyop import Message, Messenger, follow
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset
from keyop.storage.segments import channel_end
from keyop.writer.process import EXIT_BUSY

KEYS = [f"k{n}" for n in range(9)]
TYPE = "com.example.step.v1"
WRITER = 0
VICTIMS = [{1}, {2}, {WRITER}, {1}, {WRITER}, {2}, {2}, {1, WRITER}, {WRITER}, {1, 2}]

WORKER = """
number, log = int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with Messenger(data_dir) as m:
    def handle(message):
        step = message.payload
        os.write(log, f"{step['key']} {step['n']} {message.offset}\\n".encode())
    m.subscribe("c", "s", handle, start="earliest", part=(number, 2), key=lambda message: message.payload["key"],
                max_retries=1000)
    say("ready")
    hear()
    m.drain(20)  # what is another part's is passed over as well
say("ended")
"""


class Workshop:
    """The workers, and what they have handled."""

    def __init__(self, data_dir: Path, logs: list[Path]) -> None:
        self.data_dir = data_dir
        self.logs = logs
        self.workers = [self._worker(number) for number in (1, 2)]

    def _worker(self, number: int) -> Child:
        return Child(WORKER, self.data_dir, number, self.logs[number - 1])

    def restart(self, number: int) -> None:
        with self.workers[number - 1] as worker:
            worker.kill()
        self.workers[number - 1] = self._worker(number)

    def handled(self, number: int) -> list[tuple[str, int, int]]:
        path = self.logs[number - 1]
        lines = path.read_text().splitlines() if path.exists() else []
        return [(key, int(n), int(offset)) for key, n, offset in map(str.split, lines)]

    def count(self) -> int:
        return sum(len(self.handled(number)) for number in (1, 2))

    def finished(self) -> set[int]:
        return {offset for number in (1, 2) for _key, _n, offset in self.handled(number)}


def offset_of(data_dir: Path) -> int:
    parsed = read_offset(DataDirectory(data_dir).offset_file("c", "s"))
    assert parsed is None or parsed.damaged is None
    return parsed.value if parsed is not None else 0


def published(data_dir: Path) -> list[int]:
    return [message.offset for message in follow(data_dir, "c", "earliest", wait=False)]


@pytest.mark.parametrize("seed", [1, 2])
def test_order_per_key_survives_kills_of_everybody(data_dir: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    done = threading.Event()
    counts: dict[str, int] = defaultdict(int)

    def publish() -> None:
        with Messenger(data_dir) as m:
            while not done.is_set():
                for _ in range(20):
                    key = chance.choice(KEYS)
                    m.publish("c", {"key": key, "n": counts[key]}, payload_type=TYPE)
                    counts[key] += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    workshop = Workshop(data_dir, [tmp_path / "1.log", tmp_path / "2.log"])
    try:
        for victim in VICTIMS:
            more = workshop.count() + 25
            eventually(lambda more=more: workshop.count() >= more, 60.0)  # type: ignore[misc]
            for number in (1, 2):
                if number in victim:
                    workshop.restart(number)
            if WRITER in victim:
                kill_writer(data_dir)
            # In this order: what is finished only grows.
            offset = offset_of(data_dir)
            finished = workshop.finished()
            assert [each for each in published(data_dir) if each < offset and each not in finished] == []
        done.set()
        publisher.join()
        total = sum(counts.values())
        eventually(lambda: len(workshop.finished()) == total, 60.0)
        for worker in workshop.workers:
            worker.expect("ready")
            worker.say()
            worker.expect("ended")
    finally:
        done.set()
        publisher.join()
        for worker in workshop.workers:
            with worker:
                pass
    assert offset_of(data_dir) == channel_end(data_dir / "channels" / "c")
    repeated = 0
    for number in (1, 2):
        last: dict[str, int] = defaultdict(lambda: -1)
        for key, n, _offset in workshop.handled(number):
            # Only what was in hand when its process was killed comes again.
            assert n in (last[key], last[key] + 1)
            repeated += n == last[key]
            last[key] = n
        mine = {key for key, _n, _offset in workshop.handled(number)}
        assert {key: last[key] + 1 for key in mine} == {key: counts[key] for key in mine}
    assert repeated <= sum(len(victim - {WRITER}) for victim in VICTIMS)


STEPS = [
    "frame.written:30",
    "frame.synced:40",
    "applied:20",
    "settled:50",
    "journal.switched:1",
    "checkpoint.segments_synced:1",
    "checkpoint.synced:1",
    "free.zeroed:1",
    "checkpoint.freed:1",
    "recovery.journal_synced:1",
    "recovery.written:1",
    "recovery.applied:1",
    "recovery.offsets_synced:1",
    "recovery.zeroed:1",
    "recovery.freed:1",
]


def test_a_writer_that_dies_at_any_step_costs_its_parts_nothing(data_dir: Path) -> None:
    """They live on, so nothing comes twice either."""
    counts: dict[str, int] = defaultdict(int)
    handled: list[list[tuple[str, int]]] = [[], []]
    done = threading.Event()
    with Messenger(data_dir) as m:

        def publish() -> None:
            chance = random.Random(1)
            while not done.is_set():
                key = chance.choice(KEYS)
                m.publish("c", {"key": key, "n": counts[key], "pad": "x" * 200}, payload_type=TYPE)
                counts[key] += 1

        for number in (1, 2):

            def handle(message: Message[Any], mine: list[tuple[str, int]] = handled[number - 1]) -> None:
                mine.append((message.payload["key"], message.payload["n"]))

            m.subscribe("c", "s", handle, part=(number, 2), key=lambda message: message.payload["key"])
        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for step in STEPS:
                die_at(data_dir, step)
                more = sum(map(len, handled)) + 20
                eventually(lambda more=more: sum(map(len, handled)) >= more, 60.0)  # type: ignore[misc]
        finally:
            done.set()
            publisher.join()
        assert m.drain(DEADLINE_S)
    for number, mine in enumerate(handled, 1):
        assert {part_of(key, 2) for key, _ in mine} == {number}
        for key in {key for key, _ in mine}:
            assert [n for name, n in mine if name == key] == [*range(counts[key])]
    assert sum(map(len, handled)) == sum(counts.values())
    assert offset_of(data_dir) == channel_end(data_dir / "channels" / "c")


def die_at(data_dir: Path, step: str) -> None:
    """Have a writer take over that dies at a step."""
    for _ in range(20):
        kill_writer(data_dir)
        # The messenger starts one, too, within half a second: whose is refused tries again.
        writer = Writer(data_dir, on_demand=True, env={"KEYOP_CRASH_AT": step}, **TINY)
        if writer.settled() != EXIT_BUSY:
            break
        writer.end()
    # A recovery without anything to write does not come to every step.
    if not step.startswith("recovery."):
        assert writer.end() == -9, "".join(writer.lines)
