"""The names of peers' positions: those of the Go program, and no two peers share one."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.federation.positions import CLIENT_PREFIX, HUB_PREFIX, PositionNames, sanitised


@pytest.fixture
def names(tmp_path: Path) -> PositionNames:
    return PositionNames(tmp_path, HUB_PREFIX)


def test_they_are_those_of_the_go_program(tmp_path: Path) -> None:
    hubs = PositionNames(tmp_path, CLIENT_PREFIX)
    assert hubs.id_of("hub:7740") == "fedout-hub_7740"
    assert hubs.id_of("[::1]:7740") == "fedout-___1__7740"
    assert PositionNames(tmp_path, HUB_PREFIX).id_of("edge-1.example") == "fed-edge-1.example"


def test_a_name_keeps_its_position(tmp_path: Path, names: PositionNames) -> None:
    first = names.id_of("a:b")
    assert first == "fed-a_b"
    assert names.id_of("a:b") == PositionNames(tmp_path, HUB_PREFIX).id_of("a:b") == first


def test_two_that_look_the_same_do_not_share(tmp_path: Path, names: PositionNames) -> None:
    assert names.id_of("a_b") == "fed-a_b"
    other = names.id_of("a:b")
    assert re.fullmatch(r"fed-a_b-[0-9a-f]{16}", other)
    assert names.id_of("a/b") not in (other, "fed-a_b")
    again = PositionNames(tmp_path, HUB_PREFIX)
    assert (again.id_of("a:b"), again.id_of("a_b")) == (other, "fed-a_b")


def test_a_name_that_was_forgotten_is_free(names: PositionNames) -> None:
    assert names.id_of("a:b") == "fed-a_b"
    names.forget("fed-a_b")
    assert names.id_of("a_b") == "fed-a_b"
    assert names.id_of("a:b") != "fed-a_b"
    names.forget("fed-that-never-was")


def test_a_name_that_could_not_be_noted_is_noted_the_next_time(
    tmp_path: Path, names: PositionNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.id_of("a_b")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            names.id_of("a:b")
        with pytest.raises(OSError, match="No space"):
            names.forget("fed-a_b")
    other = names.id_of("a:b")
    again = PositionNames(tmp_path, HUB_PREFIX)
    assert (again.id_of("a:b"), again.id_of("a_b")) == (other, "fed-a_b")


def test_long_names_are_cut_and_stay_apart(names: PositionNames) -> None:
    ids = {names.id_of("x" * length) for length in (200, 244, 245, 255, 300)}
    assert len(ids) == 5
    assert max(map(len, ids)) == 248
    assert names.id_of("ü" * 200) != names.id_of("ö" * 200)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"fed-a_b": 5}', "\x00"])
def test_damaged_notes_count_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "fed-names.json").write_text(text)
    assert PositionNames(tmp_path, HUB_PREFIX).id_of("a:b") == "fed-a_b"
    assert json.loads((tmp_path / "fed-names.json").read_text()) == {"fed-a_b": "a:b"}


@given(names=st.lists(st.text(min_size=1, max_size=300), max_size=12, unique=True))
def test_any_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Each has one, of its own, and all of them may be part of a path."""
    given_names = PositionNames(tmp_path_factory.mktemp("run"), HUB_PREFIX)
    ids = [given_names.id_of(name) for name in names]
    assert len(set(ids)) == len(names)
    assert [given_names.id_of(name) for name in names] == ids
    assert all(re.fullmatch(r"fed-[A-Za-z0-9._-]{0,244}", id) for id in ids)


@given(st.text())
def test_sanitised(name: str) -> None:
    found = sanitised(name)
    assert len(found) == len(name.encode())
    assert sanitised(found) == found
