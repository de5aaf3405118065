"""Two processes share the work of an id, and they and the writer are killed again and again."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from child import Child, eventually, kill_writer

from keyop import Messenger, follow
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset
from keyop.storage.segments import channel_end

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
