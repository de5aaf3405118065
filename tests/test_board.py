"""The board: channels find their places whatever their hashes do, and a board that is not ours is not used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyop.errors import SharedMemoryError
from keyop.ipc import board as board_module
from keyop.ipc import layout, memory
from keyop.ipc.board import Board, BoardFull, retire
from keyop.ipc.names import DirectoryIdentity
from keyop.writer.log import Log
from keyop.writer.trouble import Trouble


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[DirectoryIdentity]:
    identity = DirectoryIdentity(tmp_path)
    yield identity
    memory.unlink(identity.board())


def test_both_sides_see_the_same_channels(identity: DirectoryIdentity) -> None:
    writer = Board.create(identity, channels=10)
    reader = Board.open(identity)
    assert reader is not None
    assert reader.state == layout.STARTING
    assert reader.incarnation == writer.incarnation != 0
    assert reader.find(b"alerts") is None
    place = writer.add(b"alerts")
    assert writer.add(b"alerts") == place == reader.find(b"alerts")
    assert reader.end(place) == 0
    writer.set_end(place, 2**40 + 5)
    writer.set_records(place, 2**33)
    writer.set_counter("syncs", 2**35)
    assert (reader.end(place), reader.records(place)) == (2**40 + 5, 2**33)
    assert reader.counters() == {name: 2**35 if name == "syncs" else 0 for name in layout.COUNTERS}
    reader.close()
    writer.close()


def test_an_end_that_is_being_stored_reads_as_none(identity: DirectoryIdentity) -> None:
    board = Board.create(identity, channels=1)
    place = board.add(b"c")
    board.set_end(place, 7)
    board.words[place + 2] = 8
    assert board.end(place) is None
    board.set_end(place, 8)
    assert board.end(place) == 8
    board.close()


def test_channels_of_equal_hashes_in_their_place_are_told_apart_by_the_rest(
    identity: DirectoryIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "channel_hash", lambda name: (1, int.from_bytes(name, "big") & 0x7F))
    board = Board.create(identity, channels=1)
    names = [bytes([number]) for number in range(1, 100)]
    places = [board.add(name) for name in names]
    assert len(set(places)) == len(names)
    for number, place in enumerate(places):
        board.set_end(place, number)
    assert [board.end(board.find(name) or 0) for name in names] == list(range(len(names)))
    assert board.find(bytes([120])) is None
    board.close()


def test_a_full_board_says_so_and_still_finds_what_it_has(identity: DirectoryIdentity) -> None:
    board = Board.create(identity, channels=1)
    names = [b"channel-%d" % number for number in range(13_000)]
    added: list[bytes] = []

    def add_all() -> None:
        for name in names:
            board.add(name)
            added.append(name)

    with pytest.raises(BoardFull):
        add_all()
    assert len(added) >= 12_000
    assert all(board.find(name) is not None for name in added)
    board.close()


def test_a_board_has_room_for_four_times_the_channels_that_there_are(identity: DirectoryIdentity) -> None:
    board = Board.create(identity, channels=5000)
    places = {board.add(b"channel-%d" % number) for number in range(15000)}
    assert len(places) == 15000
    assert max(places) * 4 < board.memory.size
    board.close()


def test_a_new_board_tells_those_of_the_old_one(identity: DirectoryIdentity) -> None:
    old = Board.create(identity, channels=1)
    old.words[layout.STATE] = layout.OPEN
    new = Board.create(identity, channels=1)
    assert old.state == layout.GONE
    assert new.state == layout.STARTING
    assert new.incarnation != old.incarnation
    retire(identity)
    assert new.state == layout.GONE
    assert Board.open(identity) is None


@pytest.mark.parametrize(
    "word", [layout.MAGIC, layout.VERSION, layout.PLATFORM, layout.SIZE, layout.DIRECTORY_LO, layout.DIRECTORY_HI]
)
def test_a_board_of_another_layout_platform_or_directory_is_none(identity: DirectoryIdentity, word: int) -> None:
    board = Board.create(identity, channels=1)
    board.words[word] ^= 1
    assert Board.open(identity) is None
    board.words[word] ^= 1
    opened = Board.open(identity)
    assert opened is not None
    opened.close()
    board.close()


def test_a_fault_says_what_it_is(identity: DirectoryIdentity) -> None:
    shared = Board.create(identity, channels=1).memory
    assert shared.fault(layout.BOARD_MAGIC, identity.id) is None
    assert "another data directory" in str(shared.fault(layout.BOARD_MAGIC, identity.id ^ 1 << 40))
    assert "not ours" in str(shared.fault(layout.PORT_MAGIC, identity.id))
    shared.words[layout.VERSION] = 99
    assert "version 99, ours is" in str(shared.fault(layout.BOARD_MAGIC, identity.id))


def test_a_board_that_others_may_write_is_refused(identity: DirectoryIdentity) -> None:
    Board.create(identity, channels=1).close()
    Path(f"/dev/shm{identity.board()}").chmod(0o666)
    with pytest.raises(SharedMemoryError, match="refused"):
        Board.open(identity)


def test_a_board_of_another_user_is_refused(identity: DirectoryIdentity) -> None:
    Board.create(identity, channels=1).close()
    identity.owner_uids = (identity.owner[0] + 1,)
    with pytest.raises(SharedMemoryError, match="not to the data directory's owner"):
        Board.open(identity)


def test_an_object_too_short_for_a_header_is_none(identity: DirectoryIdentity) -> None:
    memory.create(identity.board(), 100, identity.owner).close()
    assert Board.open(identity) is None


def test_damaged_words_are_stored_again(identity: DirectoryIdentity) -> None:
    """Nobody could attach to this writer any more, or publish, before it leaves."""
    board = Board.create(identity, channels=1, sync_interval_ms=200)
    trouble = Trouble(board, Log(sink=lambda _line: None))
    trouble.open()
    trouble.set("journal", 5)
    sound = list(board.words[: layout.STALL_ERRNO + 1])
    for index in range(len(sound)):
        if index == layout.WRITER_ASLEEP:
            continue  # stored with each sleep
        board.words[index] ^= 1 << index
        board.restate()
        trouble.restate()
        assert list(board.words[: layout.STALL_ERRNO + 1]) == sound, index
    trouble.close(layout.CLOSING)
    board.words[layout.STATE] = layout.OPEN
    trouble.restate()
    assert board.state == layout.CLOSING
    board.close()
