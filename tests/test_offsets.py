"""Offset files: ours and Go's, whole and damaged (case 8)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.storage.offsets import MAX_OFFSET, OFFSET_FILE_BYTES, format_offset, list_offsets, parse_offset, read_offset

FIXTURE = Path(__file__).parent / "fixtures" / "go-datadir"


def test_the_format_is_fixed() -> None:
    # CRC-16/IBM-3740 of "00000000000000001234" is 0xFC79.
    assert format_offset(1234) == b"00000000000000001234" + b"\t\t\t\t\t\t   \t\t\t\t  \t" + b"\n"
    assert len(format_offset(0)) == len(format_offset(MAX_OFFSET)) == OFFSET_FILE_BYTES == 37


@given(st.integers(0, MAX_OFFSET))
def test_what_is_written_is_read(offset: int) -> None:
    data = format_offset(offset)
    assert parse_offset(data) == (offset, True, None)
    assert int(data) == offset, "Go trims blanks and reads the digits"


@given(st.integers(0, MAX_OFFSET), st.integers(0, 36), st.integers(1, 255))
def test_any_one_byte_changed_is_noticed(offset: int, place: int, change: int) -> None:
    data = bytearray(format_offset(offset))
    data[place] ^= change
    parsed = parse_offset(bytes(data))
    assert parsed.damaged
    assert (parsed.value, parsed.ours) == (0, True)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"0\n", 0),
        (b"2283\n", 2283),
        (b"+7", 7),
        (b"-0", 0),
        (b" 0012\r\n", 12),
        (b"\t12 \n\n", 12),
        (b"0" * 60 + b"5", 5),
        (b"9223372036854775807\n", MAX_OFFSET),
    ],
)
def test_what_go_writes_or_accepts(data: bytes, value: int) -> None:
    assert parse_offset(data) == (value, False, None)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\n",
            b"1_0",
            b"0x10",
            b"1 0",
            b"-5",
            b"9" * 40,
            b"9223372036854775808",
            b"9" * 4096,
            b"\xd9\xa3",
            b"+",
        ),
        *(b"1.0", b"12\x00", b"\x00" * 20, b"1" * 36),
    ],
)
def test_all_else_counts_as_0_and_says_why(data: bytes) -> None:
    parsed = parse_offset(data)
    assert (parsed.value, parsed.ours) == (0, False)
    assert parsed.damaged


@given(st.binary(max_size=60))
def test_nothing_makes_it_raise(data: bytes) -> None:
    parsed = parse_offset(data)
    assert 0 <= parsed.value <= MAX_OFFSET
    assert parsed.ours == (len(data) == 37)


def test_files_that_are_no_files(tmp_path: Path) -> None:
    assert read_offset(tmp_path / "none.offset") is None
    (tmp_path / "directory.offset").mkdir()
    os.mkfifo(tmp_path / "pipe.offset")
    for name in ("directory.offset", "pipe.offset"):
        parsed = read_offset(tmp_path / name)
        assert parsed is not None
        assert parsed.damaged
        assert parsed.value == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.offset"
    path.write_bytes(b"5\n")
    path.chmod(0)
    parsed = read_offset(path)
    assert parsed is not None
    assert "cannot be read" in (parsed.damaged or "")


def test_a_look_that_catches_two_halves_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = format_offset(999), format_offset(1000)
    looks = iter([new[:18] + old[18:], new])
    monkeypatch.setattr("keyop.storage.offsets.read_start", lambda _path: next(looks))
    assert read_offset(tmp_path / "x.offset") == (1000, True, None)


def test_every_offset_file_is_listed_whatever_its_name(tmp_path: Path) -> None:
    assert list_offsets(tmp_path / "nothing") == []
    for name in ("b.offset", "a.offset", "fed-x.offset", "a:b.offset", ".offset", "ä.offset"):
        (tmp_path / name).write_bytes(format_offset(7))
    (tmp_path / "torn.offset").write_bytes(b"1_0")
    (tmp_path / "a.offset.tmp").write_bytes(b"1")
    (tmp_path / "a.parts").write_bytes(b"1")
    found = dict(list_offsets(tmp_path))
    assert sorted(found) == sorted(["", "a", "a:b", "b", "fed-x", "torn", "ä"])
    assert found["a"] == (7, True, None)
    assert found["torn"].damaged


def test_the_go_fixture() -> None:
    assert list_offsets(FIXTURE / "subscribers" / "alerts") == [("notifier", (2283, False, None))]
