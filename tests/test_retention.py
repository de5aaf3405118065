"""Which segments go, and which never do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.storage.offset_file import write_offset
from keyop.storage.segments import list_segments, segment_name
from keyop.writer import retention
from keyop.writer.log import Log
from keyop.writer.retention import Retention

DAY_S = 86_400.0


class Board:
    def __init__(self) -> None:
        self.counters: dict[str, int] = {}

    def set_counter(self, name: str, total: int) -> None:
        self.counters[name] = total


class Fixture:
    """Channels with segments of ten bytes, and a retention whose checkpoints are done at once."""

    def __init__(self, path: Path, **options: float) -> None:
        self.directory = DataDirectory(path)
        self.directory.make()
        self.log: list[str] = []
        self.board = Board()
        given = WriterOptions(str(path))
        for name, value in options.items():
            setattr(given, name, value)
        committer: Any = SimpleNamespace(
            channels=SimpleNamespace(rolled=set()),
            board=self.board,
            request_checkpoint=lambda then: then(),
        )
        self.committer = committer
        self.retention = Retention(self.directory, given, committer, Log(level="debug", sink=self.log.append))

    def channel(self, name: str, segments: int, ages_days: tuple[float, ...] = ()) -> None:
        self.directory.channel(name).mkdir()
        for number in range(segments):
            path = self.directory.channel(name) / segment_name(number * 10)
            path.write_bytes(b"123456789\n")
            if number < len(ages_days):
                stamp = time.time() - ages_days[number] * DAY_S
                os.utime(path, (stamp, stamp))

    def offset(self, channel: str, id: str, value: int | bytes) -> None:
        path = self.directory.offset_file(channel, id)
        path.parent.mkdir(exist_ok=True)
        if isinstance(value, int):
            write_offset(path, value)
        else:
            path.write_bytes(value)

    def look(self, by_age: bool = True) -> None:
        self.retention._look(by_age)

    def starts(self, channel: str) -> list[int]:
        return [segment.start for segment in list_segments(self.directory.channel(channel))[0]]


@pytest.fixture
def made(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path / "data", max_files=0)


def test_what_every_subscriber_has_consumed_goes(made: Fixture) -> None:
    made.channel("c", 5)
    made.offset("c", "fast", 50)
    made.offset("c", "slow", 25)
    made.look()
    assert made.starts("c") == [20, 30, 40]
    assert made.board.counters["evicted_bytes"] == 0


def test_an_offset_on_the_border_is_behind_the_segment(made: Fixture) -> None:
    made.channel("c", 3)
    made.offset("c", "s", 20)
    made.look()
    assert made.starts("c") == [20]


def test_the_active_segment_never_goes(made: Fixture) -> None:
    made.channel("c", 2)
    made.offset("c", "s", 1000)
    made.look()
    assert made.starts("c") == [10]


@pytest.mark.parametrize(
    "damaged", [b"", b"-5", b"0x10", b"99999999999999999999999", b"00000000000000000050" + b" " * 17]
)
def test_a_damaged_offset_counts_as_0_and_frees_nothing(made: Fixture, damaged: bytes) -> None:
    made.channel("c", 3)
    made.offset("c", "s", 30)
    made.offset("c", "broken", damaged)
    made.look()
    assert made.starts("c") == [0, 10, 20]


def test_a_directory_with_the_name_of_an_offset_frees_nothing(made: Fixture) -> None:
    made.channel("c", 3)
    made.offset("c", "s", 30)
    (made.directory.offsets("c") / "dir.offset").mkdir()
    made.look()
    assert made.starts("c") == [0, 10, 20]


@pytest.mark.parametrize("name", ["fed-host", "fedout-hub_7740", "a:b", "absent"])
def test_every_offset_file_counts_whatever_its_name(made: Fixture, name: str) -> None:
    """Case 35, 41: of somebody who is away, of a peer, of a hub that is no longer configured."""
    made.channel("c", 3)
    made.offset("c", "here", 30)
    made.offset("c", name, 0)
    made.look()
    assert made.starts("c") == [0, 10, 20]


def test_without_any_subscriber_all_is_kept(made: Fixture) -> None:
    made.channel("c", 5)
    made.look()
    assert made.starts("c") == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("most", "left"), [(1, [40]), (2, [30, 40]), (10, [0, 10, 20, 30, 40]), (0, [0, 10, 20, 30, 40])]
)
def test_max_files_counts_the_active_one(tmp_path: Path, most: int, left: list[int]) -> None:
    made = Fixture(tmp_path / "data", max_files=most)
    made.channel("c", 5)
    made.offset("c", "slow", 0)
    made.look()
    assert made.starts("c") == left
    assert made.board.counters.get("evicted_bytes", 0) == (5 - len(left)) * 10


def test_age_is_that_of_the_last_write_and_stops_at_the_first_that_stays(tmp_path: Path) -> None:
    made = Fixture(tmp_path / "data", max_files=0, retention=2 * DAY_S)
    made.channel("c", 4, (3, 1, 3, 3))
    made.look(by_age=False)
    assert made.starts("c") == [0, 10, 20, 30]
    made.look()
    assert made.starts("c") == [10, 20, 30]


def test_a_file_of_1970_was_written_before_the_clock_was_set(tmp_path: Path) -> None:
    made = Fixture(tmp_path / "data", max_files=0, retention=2 * DAY_S)
    made.channel("c", 3)
    os.utime(made.directory.channel("c") / segment_name(0), (1000.0, 1000.0))
    made.look()
    assert made.starts("c") == [0, 10, 20]


def test_dead_letters_go_after_seven_days_or_the_global_value(tmp_path: Path) -> None:
    made = Fixture(tmp_path / "a", max_files=0)
    made.channel("c.dead-letter", 3, (8, 6))
    made.channel("c", 3, (8, 8))
    made.look()
    assert made.starts("c.dead-letter") == [10, 20]
    assert made.starts("c") == [0, 10, 20]
    made = Fixture(tmp_path / "b", max_files=0, retention=DAY_S)
    made.channel("c.dead-letter", 3, (2, 0.5))
    made.look()
    assert made.starts("c.dead-letter") == [10, 20]


def test_what_was_found_before_the_checkpoint_is_looked_at_again_behind_it(made: Fixture) -> None:
    made.channel("c", 4)
    made.offset("c", "s", 20)

    def checkpoint(then: Any) -> None:
        # While it ran one more segment was consumed, and somebody subscribed from the second on.
        made.offset("c", "s", 40)
        made.offset("c", "new", 10)
        then()

    made.committer.request_checkpoint = checkpoint
    made.look()
    assert made.starts("c") == [10, 20, 30]


def test_only_what_was_found_before_the_checkpoint_goes(made: Fixture) -> None:
    """The offset that frees the rest is not on the device yet."""
    made.channel("c", 4)
    made.offset("c", "s", 20)

    def checkpoint(then: Any) -> None:
        made.offset("c", "s", 40)
        then()

    made.committer.request_checkpoint = checkpoint
    made.look()
    assert made.starts("c") == [20, 30]


def test_channels_that_rolled_since_the_first_look_are_looked_at(made: Fixture) -> None:
    made.channel("c", 1)
    made.look()
    (made.directory.channel("c") / segment_name(10)).write_bytes(b"")
    made.offset("c", "s", 10)
    made.look()
    assert made.starts("c") == [0, 10]
    made.committer.channels.rolled.add("c")
    made.look()
    assert made.starts("c") == [10]


def test_a_channel_that_was_deleted_meanwhile_and_foreign_names_are_no_trouble(made: Fixture) -> None:
    made.channel("c", 3)
    made.offset("c", "s", 30)
    (made.directory.channel("c") / "5.jsonl").write_bytes(b"")
    made.committer.channels.rolled.add("gone")
    made.look()
    assert made.starts("c") == [20]
    assert (made.directory.channel("c") / "5.jsonl").exists()


def test_what_cannot_be_removed_is_reported(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    made.channel("c", 3)
    made.offset("c", "s", 30)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(retention.disk, "unlink", refuse)
    made.look()
    assert any("retention_failed" in line for line in made.log)
