"""Those at the door: few at a time, and what is told of those who are turned away. And how long to wait."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from keyop.configuration.settings import FederationSettings
from keyop.federation import rejections
from keyop.federation.arrivals import Arrival, Arrivals
from keyop.federation.backoff import Backoff
from keyop.federation.durations import go_duration
from keyop.federation.rejections import Rejections


class Door:
    def __init__(self, most: int) -> None:
        self.arrivals = Arrivals(most)
        self.turned_away: list[str] = []

    def enter(self, host: str, name: str) -> Arrival:
        return self.arrivals.enter(host, lambda: self.turned_away.append(name))


def test_one_more_turns_away_the_oldest_of_the_busiest_address() -> None:
    door = Door(4)
    door.enter("quiet", "q1")
    for number in range(3):
        door.enter("busy", f"b{number}")
    door.enter("quiet", "q2")
    assert door.turned_away == ["b0"]
    door.enter("busy", "b3")
    door.enter("new", "n1")
    assert door.turned_away == ["b0", "b1", "q1"]
    assert len(door.arrivals) == 4


def test_who_leaves_makes_room() -> None:
    door = Door(2)
    first = door.enter("a", "1")
    door.enter("a", "2")
    first.leave()
    first.leave()
    assert len(door.arrivals) == 1
    door.enter("a", "3")
    assert door.turned_away == []


class FakeAudit:
    def __init__(self) -> None:
        self.details: list[str] = []

    def event(self, _event: str, *, detail: str, **_: Any) -> None:
        self.details.append(detail)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(rejections.time, "monotonic", lambda: now[0])
    return now


def test_a_refusal_is_told_once_and_then_counted(now: list[float]) -> None:
    audit = FakeAudit()
    told = Rejections(audit, logging.getLogger("test"))  # type: ignore[arg-type]
    for port in range(50):
        told.note(f"1.2.3.4:{port}", "no")
    told.note("1.2.3.4:1", "other reason")
    told.note("5.6.7.8:1", "no")
    assert audit.details == ["no", "other reason", "no"]
    told.look()
    now[0] += 61
    told.look()
    assert audit.details[3:] == ["no repeated=49"]
    now[0] += 61
    told.look()
    assert len(audit.details) == 4
    told.note("1.2.3.4:9", "no")
    told.note("1.2.3.4:9", "no")
    told.close()
    assert audit.details[4:] == ["no", "no repeated=1"]


def test_what_is_told_takes_no_memory(now: list[float]) -> None:
    told = Rejections(FakeAudit(), logging.getLogger("test"))  # type: ignore[arg-type]
    for number in range(5_000):
        told.note(f"1.2.{number // 100}.{number % 100}:1", "no")
    assert len(told._told) == rejections._KEPT


def test_who_makes_up_new_reasons_is_told_of_so_often(now: list[float]) -> None:
    audit = FakeAudit()
    told = Rejections(audit, logging.getLogger("test"))  # type: ignore[arg-type]
    for number in range(500):
        told.note(f"1.2.3.4:{number}", f"handshake: not JSON: {number}", "peer")
    assert len(audit.details) == rejections._REASONS + 1
    told.close()
    assert audit.details[-1] == f"other reasons repeated={500 - rejections._REASONS - 1}"


def test_waits_double_up_to_the_longest_and_are_spread(tmp_path: Path) -> None:
    settings = FederationSettings(reconnect_base_ms=500, reconnect_max_ms=60_000, reconnect_jitter=0.2)
    backoff = Backoff(settings, random.Random(1))
    waits = [backoff.next_s() for _ in range(12)]
    for wait, plain in zip(waits, [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60], strict=True):
        assert 0.8 * plain <= wait <= 1.2 * plain
    assert len(set(waits)) == 12
    backoff.succeeded()
    assert backoff.next_s() <= 0.6
    assert backoff.longest_s() >= 48
    for _ in range(100_000):
        backoff.next_s()  # after a month, too


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2481, "248ms"), (1.4474, "1.447s"), (62.9, "1m2s"), (10807.2, "3h0m7s"), (0, "0ms")]
)
def test_durations_of_the_go_program(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
