"""Publishers, a plain subscriber and an exactly-once chain, all in processes of their own, and what must hold after it.

Each message says which publisher it is from and its number there. A publisher notes a number when `publish` has
returned, the subscriber's handler each that it sees; the notes are appended to files and outlive every kill.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from child import Child, eventually

from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments

PUBLISHER = """
name, sync_ms, first = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
import dataclasses
from keyop.configuration.settings import Settings, StorageSettings
tiny = dict(compaction_threshold_mb=0.004, dead_letter_compaction_threshold_mb=0.004, journal_mb=0.0625, max_files=0)
settings = Settings(storage=StorageSettings(data_dir=str(data_dir), sync_interval_ms=sync_ms, **tiny))
notes = os.open(f"{data_dir}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
m = Messenger(settings)
number = first
stop = threading.Event()
threading.Thread(target=lambda: (hear(), stop.set()), daemon=True).start()
say("ready")
while not stop.is_set():
    channel = "in" if number % 3 else "other"
    if number % 11 == 0:
        m.publish_batch(channel, [{"from": name, "n": number + i, "pad": "x" * 200} for i in range(5)],
                        payload_type="t", correlation_id=name)
        told = range(number, number + 5)
    elif number % 37 == 0:
        with m.atomic() as tx:
            tx.publish("in", {"from": name, "n": number, "pad": "a"}, payload_type="t")
            tx.publish("other", {"from": name, "n": number, "pad": "a"}, payload_type="t")
        told = [number]
    else:
        m.publish(channel, {"from": name, "n": number, "pad": "x" * (number % 300)}, payload_type="t")
        told = [number]
    os.write(notes, "".join(f"{n}\\n" for n in told).encode())
    number = told[-1] + 1
    time.sleep(0.001)
m.close()
say("closed")
"""

SUBSCRIBER = """
import dataclasses
from keyop.configuration.settings import Settings, StorageSettings
tiny = dict(compaction_threshold_mb=0.004, dead_letter_compaction_threshold_mb=0.004, journal_mb=0.0625, max_files=0)
settings = Settings(storage=StorageSettings(data_dir=str(data_dir), sync_interval_ms=int(sys.argv[2]), **tiny))
notes = os.open(f"{data_dir}.handled", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
m = Messenger(settings)
def handle(message):
    os.write(notes, f"{message.payload['from']} {message.payload['n']}\\n".encode())
def pass_on(message):
    m.publish("out", message.payload, payload_type="t")
while True:
    try:
        m.subscribe("in", "plain", handle, start="earliest")
        m.subscribe("in", "chain", pass_on, start="earliest", exactly_once=True)
        break
    except SubscriberBusy:
        time.sleep(0.01)
say("ready")
hear()
m.close()
say("closed")
"""


# A publisher that is started again goes on with numbers of its own: what its predecessor left in its ring may be
# committed after its first messages.
_A_LIFE = 1_000_000


class Chain:
    """All of it on one data directory."""

    def __init__(self, data_dir: Path, sync_ms: int = 0) -> None:
        self.data_dir = data_dir
        self.sync_ms = sync_ms
        self.children: dict[str, Child] = {}
        self._first = Counter[str]()
        # Somebody who is away and still needs everything: so nothing is removed as consumed.
        keeper = DataDirectory(data_dir).offset_file("in", "away")
        keeper.parent.mkdir(parents=True)
        keeper.write_bytes(b"0")

    def start(self, name: str) -> None:
        if name == "subscriber":
            child = Child(SUBSCRIBER, self.data_dir, self.sync_ms)
        else:
            first = self._first[name]
            child = Child(PUBLISHER, self.data_dir, name, self.sync_ms, first)
        self.children[name] = child
        child.expect("ready")

    def kill(self, name: str) -> None:
        """Kill one, and start it again behind everything that it can have published."""
        self.children.pop(name).__exit__()
        self._first[name] += _A_LIFE
        self.start(name)

    def acknowledged(self, name: str) -> list[int]:
        path = Path(f"{self.data_dir}.{name}")
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def progress(self, count: int) -> None:
        """Wait until every publisher has so many more acknowledged."""
        names = [name for name in self.children if name != "subscriber"]
        goal = {name: len(self.acknowledged(name)) + count for name in names}

        def reached() -> bool:
            for name, child in self.children.items():
                assert child.process.poll() is None, f"{name} ended\n{child.errors}"
            return all(len(self.acknowledged(name)) >= goal[name] for name in names)

        eventually(reached)

    def records(self, channel: str) -> list[tuple[str, int]]:
        lines = b"".join(at.path.read_bytes() for at in list_segments(DataDirectory(self.data_dir).channel(channel))[0])
        payloads = [json.loads(line)["payload"] for line in lines.split(b"\n")[:-1]]
        return [(payload["from"], payload["n"]) for payload in payloads]

    def handled(self) -> set[tuple[str, int]]:
        path = Path(f"{self.data_dir}.handled")
        lines = path.read_text().splitlines() if path.exists() else []
        return {(line.split()[0], int(line.split()[1])) for line in lines}

    def stop(self) -> None:
        """Publishers first, then wait until the subscribers have seen it all."""
        for name, child in self.children.items():
            if name != "subscriber":
                child.say()
                child.expect("closed")
        if "subscriber" in self.children:
            wanted = set(self.records("in"))
            eventually(lambda: wanted <= self.handled())
            eventually(lambda: len(self.records("out")) >= len(wanted))
            self.children["subscriber"].say()
            self.children["subscriber"].expect("closed")
        self.close()

    def close(self) -> None:
        for child in self.children.values():
            child.__exit__()
        self.children.clear()

    def check(self) -> None:
        """Acknowledged: there, once. In order by publisher. Handled at least once, passed on exactly once."""
        found = {channel: self.records(channel) for channel in ("in", "other")}
        for channel, records in found.items():
            assert max(Counter(records).values(), default=1) == 1, f"doubled in {channel}"
            by_process: dict[tuple[str, int], list[int]] = {}
            for name, number in records:
                by_process.setdefault((name, number // _A_LIFE), []).append(number)
            for process, numbers in by_process.items():
                assert numbers == sorted(numbers), f"{process} in {channel}"
        everywhere = set(found["in"] + found["other"])
        for name in {name for name, _ in everywhere}:
            lost = [number for number in self.acknowledged(name) if (name, number) not in everywhere]
            assert not lost, f"{name}: {lost} were acknowledged and are lost"
        both = set(found["in"]) & set(found["other"])
        halves = [(name, number) for name, number in found["in"] + found["other"] if number % 37 == 0 and number % 11]
        assert all(half in both for half in halves if not self._in_batch(half)), "half of an atomic batch"
        if Path(f"{self.data_dir}.handled").exists():
            assert set(found["in"]) <= self.handled()
            assert Counter(self.records("out")) == Counter(found["in"])

    @staticmethod
    def _in_batch(record: tuple[str, int]) -> bool:
        return any((record[1] - back) % 11 == 0 for back in range(1, 5))
