"""A port: made by one process, mapped by the writer, swept without a trace, and made anew under a running process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyop.attachment.replies import Replies
from keyop.errors import PublishRefused, SharedMemoryError, SubscriberBusy
from keyop.ipc import layout, memory, port, semaphore
from keyop.ipc.layout import COMMITTED, HEAD, MASK
from keyop.ipc.names import PREFIX, DirectoryIdentity
from keyop.ipc.port import Port, Reply
from keyop.ipc.ring import RingProducer
from keyop.ipc.slot import SlotCursor
from keyop.protocol import reply

NAME = "0123abcd"


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[DirectoryIdentity]:
    identity = DirectoryIdentity(tmp_path)
    yield identity
    port.remove(identity, NAME, pages=5)


def objects(identity: DirectoryIdentity) -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").glob(f"*{PREFIX[1:]}{identity.key}-*"))


def test_the_writer_maps_what_a_process_made(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME, role=3)
    theirs = Port.open(identity, NAME)
    assert theirs is not None
    assert theirs.ring_id == mine.ring_id != 0
    assert theirs.words[layout.ROLE] == 3
    mine.words[HEAD] = 77
    assert theirs.words[HEAD] == 77
    mine.commit.post()
    theirs.commit.wait(1)
    slot = mine.slot(5)
    slot.occupy(b"c", b"i", 0)
    slot.cursor_writer()(1, 2, 3)
    assert theirs.slot(5).cursor() == SlotCursor(1, 2, 3)
    theirs.close()
    mine.close()


def test_all_objects_are_private_short_and_removed(identity: DirectoryIdentity) -> None:
    Port.create(identity, NAME).close()
    there = objects(identity)
    assert len(there) == 3
    for name in there:
        path = Path("/dev/shm") / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(name.removeprefix("sem.")) + 1 <= 30
    # All of its memory is there: a full /dev/shm must be an error at the start, not a SIGBUS later.
    assert Path(f"/dev/shm{identity.port(NAME)}").stat().st_blocks * 512 >= layout.PORT_SIZE_BYTES
    port.remove(identity, NAME)
    port.remove(identity, NAME)
    assert objects(identity) == []
    assert Port.open(identity, NAME) is None


def test_a_name_that_is_taken_is_an_error_and_left_alone(identity: DirectoryIdentity) -> None:
    first = Port.create(identity, NAME)
    with pytest.raises(SharedMemoryError, match="exists already"):
        Port.create(identity, NAME)
    assert len(objects(identity)) == 3
    first.close()


def test_a_port_that_cannot_be_made_whole_leaves_nothing(identity: DirectoryIdentity) -> None:
    semaphore.create(identity.data_semaphore(NAME), identity.owner).close()
    with pytest.raises(SharedMemoryError, match="cannot be made"):
        Port.create(identity, NAME)
    assert objects(identity) == []


def test_a_port_with_a_part_missing_or_wrong_is_refused_with_the_reason(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    mine.words[layout.VERSION] = layout.VERSION_NUMBER + 1
    with pytest.raises(
        SharedMemoryError, match=f"version {layout.VERSION_NUMBER + 1}, ours is {layout.VERSION_NUMBER}"
    ):
        Port.open(identity, NAME)
    mine.words[layout.VERSION] = layout.VERSION_NUMBER
    semaphore.unlink(identity.commit_semaphore(NAME))
    with pytest.raises(SharedMemoryError, match="a semaphore is missing"):
        Port.open(identity, NAME)
    mine.close()


def test_a_port_of_another_owner_is_refused(identity: DirectoryIdentity) -> None:
    Port.create(identity, NAME).close()
    identity.owner_uids = (identity.owner[0] + 1,)
    with pytest.raises(SharedMemoryError, match="not to the data directory's owner: refused"):
        Port.open(identity, NAME)


def test_a_port_of_another_size_is_refused(identity: DirectoryIdentity) -> None:
    memory.create(identity.port(NAME), 8192, identity.owner).stamp(layout.PORT_MAGIC, identity.id)
    semaphore.create(identity.commit_semaphore(NAME), identity.owner)
    semaphore.create(identity.data_semaphore(NAME), identity.owner)
    with pytest.raises(SharedMemoryError, match="8192 bytes"):
        Port.open(identity, NAME)


def test_further_slots_lie_in_further_objects(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    theirs = Port.open(identity, NAME)
    assert theirs is not None
    assert mine.slot_count() == 64
    mine.add_slot_page()
    mine.add_slot_page()
    assert mine.slot_count() == theirs.slot_count() == 192
    mine.slot(191).occupy(b"far", b"away", 0)
    mine.slot(64).occupy(b"next", b"one", 0)
    assert theirs.slot(191).names() == (b"far", b"away")
    assert theirs.slot(64).names() == (b"next", b"one")
    assert len(objects(identity)) == 5
    port.remove(identity, NAME, pages=2)
    assert objects(identity) == []
    theirs.close()
    mine.close()


def test_a_port_made_anew_is_the_same_port(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    mine.add_slot_page()
    RingProducer(mine.memory).put(b"x" * 100)
    mine.slot(70).occupy(b"c", b"i", 0)
    mine.slot(70).cursor_writer()(4, 5, 6)
    before = (mine.ring_id, mine.words[HEAD], mine.memory.buffer[:])
    for name in objects(identity):
        (Path("/dev/shm") / name).unlink()
    assert Port.open(identity, NAME) is None
    mine.remake(NAME)
    theirs = Port.open(identity, NAME)
    assert theirs is not None
    assert (theirs.ring_id, theirs.words[HEAD], theirs.memory.buffer[:]) == before
    assert theirs.slot(70).cursor() == SlotCursor(4, 5, 6)
    mine.data.post()
    theirs.data.wait(1)
    port.remove(identity, NAME, pages=1)
    theirs.close()
    mine.close()


def test_a_port_of_which_a_part_is_left_is_made_anew_too(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    memory.unlink(identity.port(NAME))
    mine.remake(NAME)
    assert len(objects(identity)) == 3
    mine.close()


# ---- replies


@settings(max_examples=50)
@given(
    position=st.integers(0, MASK),
    code=st.integers(0, 10),
    value=st.integers(0, 2**64 - 1),
    number=st.integers(0, MASK),
    word=st.integers(0, 4),
    flip=st.integers(1, MASK),
)
def test_a_torn_reply_is_not_read(position: int, code: int, value: int, number: int, word: int, flip: int) -> None:
    import mmap
    from types import SimpleNamespace
    from typing import Any

    shared = memory.Memory("port", mmap.mmap(-1, layout.PORT_SIZE_BYTES))
    nobody: Any = SimpleNamespace()
    one = Port("x", shared, nobody, nobody, nobody)
    shared.words[layout.REPLIES_WRITTEN] = shared.words[layout.REPLIES_TAKEN] = number
    one.write_reply(Reply(position, code, value))
    assert one.read_reply(number) == Reply(position, code, value)
    assert shared.words[layout.REPLIES_WRITTEN] == number + 1 & MASK
    at = layout.REPLIES + number % layout.REPLY_SLOTS * layout.REPLY_WORDS
    shared.words[at + word] ^= flip
    assert one.read_reply(number) is None


def test_there_is_room_for_sixteen_replies_that_were_not_taken(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    replies = Replies(mine)
    for number in range(layout.REPLY_SLOTS):
        assert mine.reply_room() == layout.REPLY_SLOTS - number
        mine.write_reply(Reply(number + 1, reply.OK, number))
    assert mine.reply_room() == 0
    mine.words[COMMITTED] = 5
    assert replies.of(5, "c") == [4]
    assert mine.reply_room() == 5
    mine.close()


def test_an_answer_counts_once_its_record_is_committed(identity: DirectoryIdentity) -> None:
    """The writer may die between answering and committing: the next one answers again."""
    mine = Port.create(identity, NAME)
    replies = Replies(mine)
    mine.words[COMMITTED] = MASK - 10
    mine.write_reply(Reply(20, reply.BUSY, 4711))
    assert replies.pending()
    assert replies.of(20, "c") == []
    mine.words[COMMITTED] = 20
    with pytest.raises(SubscriberBusy, match="4711"):
        replies.of(20, "c")
    assert replies.of(20, "c") == []
    mine.close()


def test_several_answers_to_one_record_and_a_refusal_among_others(identity: DirectoryIdentity) -> None:
    mine = Port.create(identity, NAME)
    replies = Replies(mine)
    for value in (7, 8, 9):
        mine.write_reply(Reply(100, reply.OK, value))
    mine.write_reply(Reply(200, reply.NOT_A_DIRECTORY, 0))
    mine.words[COMMITTED] = 300
    assert replies.of(150, "c") == []
    assert replies.of(100, "c") == [7, 8, 9]
    with pytest.raises(PublishRefused, match="channels/c is not a directory"):
        replies.of(200, "c")
    mine.close()


@pytest.mark.parametrize("code", range(1, 11))
def test_every_refusal_has_a_text_that_names_what_it_is_about(code: int) -> None:
    assert len(str(reply.refusal(code, 28, "alerts"))) > 30


def test_a_code_of_a_later_release_is_an_error_too() -> None:
    assert isinstance(reply.refusal(99, 5, "alerts"), PublishRefused)
