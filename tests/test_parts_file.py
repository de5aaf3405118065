"""The file that keeps the offset of each part: what is written is read, and what is damaged counts as absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyop.protocol.entry import MAX_PARTS
from keyop.storage.offset_file import write_parts
from keyop.storage.offsets import MAX_OFFSET
from keyop.storage.parts import ParsedParts, format_parts, load_parts, parse_parts, places, read_parts

OFFSETS = st.lists(st.integers(0, MAX_OFFSET), min_size=2, max_size=MAX_PARTS).map(tuple)


@given(OFFSETS)
def test_what_is_written_is_read(offsets: tuple[int, ...]) -> None:
    data = format_parts(offsets)
    assert parse_parts(data) == ParsedParts(offsets, None)
    assert len(data) == 21 * len(offsets) + 9


@given(OFFSETS, st.data())
def test_a_changed_byte_is_noticed(offsets: tuple[int, ...], data: st.DataObject) -> None:
    content = bytearray(format_parts(offsets))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    assert parse_parts(bytes(content)).damaged


@given(OFFSETS, OFFSETS)
def test_half_of_a_write_is_noticed(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """A power cut keeps any of the sectors of a long one."""
    before, after = format_parts(old), format_parts(new)
    torn = after[:512] + before[512 : len(after)]
    if torn not in (before, after):
        assert parse_parts(torn).damaged


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        format_parts([7]),
        format_parts(range(MAX_PARTS + 1)),
        format_parts([MAX_OFFSET + 1, 0]),
        format_parts([1, 2]) + b"\n",
        format_parts([1, 2])[:-1],
    ],
)
def test_what_is_no_such_file_counts_as_absent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.parts"
    path.write_bytes(content)
    found = load_parts(path)
    assert found is not None
    assert found.damaged
    assert places(40, found) == ((40,), found.damaged)


def test_it_counts_with_the_offset_that_it_was_written_with(tmp_path: Path) -> None:
    path = tmp_path / "s.parts"
    assert read_parts(path) is None
    assert places(40, None) == ((40,), None)
    write_parts(path, [50, 40, 60])
    assert places(40, read_parts(path)) == ((50, 40, 60), None)
    where, why = places(45, read_parts(path))
    assert where == (45,)
    assert why == "its least offset is 40, and the offset file says 45"


def test_one_of_another_number_of_parts_is_renamed_into_place(tmp_path: Path) -> None:
    path = tmp_path / "s.parts"
    assert write_parts(path, [1, 2])
    before = path.stat().st_ino
    assert not write_parts(path, [3, 4])
    assert path.stat().st_ino == before
    assert write_parts(path, [3, 4, 5])
    assert path.stat().st_ino != before
    assert [each.name for each in tmp_path.iterdir()] == ["s.parts"]
