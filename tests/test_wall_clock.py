"""When the wall clock may decide about the age of files."""

from __future__ import annotations

import pytest

from keyop.storage import wall_clock
from keyop.storage.wall_clock import WallClock


def test_a_clock_that_jumps_is_not_trusted_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(wall_clock.time, "time", lambda: now)
    monkeypatch.setattr(wall_clock.time, "monotonic", lambda: 5.0)
    clock = WallClock()
    assert clock.trusted(now + 1, 6.0)
    assert not clock.trusted(now + 1000, 7.0)
    assert not clock.trusted(now + 1599, 606.0)
    assert clock.trusted(now + 1601, 608.0)
    assert not clock.trusted(now - 5000, 609.0)


def test_a_clock_of_1970_is_never_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock.time, "time", lambda: 100.0)
    monkeypatch.setattr(wall_clock.time, "monotonic", lambda: 5.0)
    clock = WallClock()
    assert not clock.trusted(100_000.0, 99_905.0)
