"""What a writer makes of the ports that outlived the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyop.ipc import lease, port
from keyop.ipc.layout import (
    COMMITTED,
    HEAD,
    MASK,
    MOST_SLOT_PAGES,
    POISONED,
    REPLIES_TAKEN,
    REPLIES_WRITTEN,
    SLOT_PAGES,
    SLOTS_A_PAGE,
)
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.port import Port, Reply
from keyop.writer import attached as attached_module
from keyop.writer.attached import AttachedPort
from keyop.writer.census import Census
from keyop.writer.log import Log

NAME = "0badcafe"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[DirectoryIdentity, Port]]:
    identity = DirectoryIdentity(tmp_path)
    created = Port.create(identity, NAME)
    yield identity, created
    created.close()
    port.remove(identity, NAME)


def attach(identity: DirectoryIdentity, run: Path) -> AttachedPort:
    opened = Port.open(identity, NAME)
    assert opened is not None
    return AttachedPort(NAME, opened, run / f"port-{NAME}")


def answers(made: Port) -> list[Reply | None]:
    words = made.words
    count = words[REPLIES_WRITTEN] - words[REPLIES_TAKEN] & MASK
    return [made.read_reply(words[REPLIES_TAKEN] + number & MASK) for number in range(count)]


@pytest.mark.parametrize("start", [0, MASK - 100])
def test_answers_that_were_written_and_not_published_are_given_once(
    made: tuple[DirectoryIdentity, Port], tmp_path: Path, start: int
) -> None:
    """The last writer was killed between the answers and COMMITTED. `open` has four: eight would be unreadable."""
    identity, process = made
    process.words[COMMITTED] = start
    process.words[HEAD] = start + 200 & MASK
    before = [Reply(start, 0, 9)]
    now = [Reply(start + 200 & MASK, 0, value) for value in range(4)]
    for written in range(5):
        process.words[REPLIES_TAKEN] = process.words[REPLIES_WRITTEN] = MASK - 1
        process.words[COMMITTED] = start
        for reply in before + now[:written]:
            process.write_reply(reply)
        attached = attach(identity, tmp_path)
        assert answers(process) == before
        assert attached.take_over(start + 200 & MASK, [tuple(reply) for reply in now])  # type: ignore[misc]
        assert answers(process) == before + now
        attached.port.close()


def test_a_position_counts_only_if_it_is_ahead_by_no_more_than_the_ring(
    made: tuple[DirectoryIdentity, Port], tmp_path: Path
) -> None:
    identity, process = made
    attached = attach(identity, tmp_path)
    process.words[COMMITTED] = 1000
    assert not attached.take_over(1000, [])
    assert not attached.take_over(999, [])
    assert not attached.take_over(1000 + 256 * 1024 + 1, [])
    assert attached.take_over(1000 + 256 * 1024, [])
    attached.port.close()


def test_the_dead_get_no_answers_and_a_closed_ring_stays_blocked(
    made: tuple[DirectoryIdentity, Port], tmp_path: Path
) -> None:
    identity, process = made
    attached = attach(identity, tmp_path)
    attached.dead = True
    for position in range(100):
        attached.reply(position, 0)
    attached.settle()
    assert answers(process) == []
    attached.blocked = True
    attached.unblock()
    assert not attached.blocked
    process.words[POISONED] = 1
    attached.unblock()
    assert attached.blocked
    assert attached.drained
    attached.port.close()


def test_a_port_that_turns_up_late_gets_what_the_recovery_found_of_its_ring(
    made: tuple[DirectoryIdentity, Port], tmp_path: Path
) -> None:
    """Its process made its memory anew after the start: what was in the journal must not be committed again."""
    identity, process = made
    log: list[str] = []
    census = Census(tmp_path, identity, Log(sink=log.append), {process.ring_id: (300, [(300, 0, 1)])})
    assert census.scan() == []
    process.words[HEAD] = 300
    held = lease.create_port_lease(tmp_path, NAME)
    lease.publish_port_lease(held, NAME)
    (found,) = census.scan()
    assert (found.taken, process.words[COMMITTED], answers(process)) == (300, 300, [Reply(300, 0, 1)])
    assert census.find_dead() == []
    held.release()
    assert census.find_dead() == [found]
    census.sweep(found)
    assert (census.ports, census.leases()) == ([], [])


def test_a_port_that_cannot_be_used_goes_with_its_process(made: tuple[DirectoryIdentity, Port], tmp_path: Path) -> None:
    identity, process = made
    process.words[1] = 99  # another layout
    log: list[str] = []
    census = Census(tmp_path, identity, Log(sink=log.append), {})
    held = lease.create_port_lease(tmp_path, NAME)
    lease.publish_port_lease(held, NAME)
    for _ in range(3):
        assert census.scan() == []
    assert len(log) == 1
    assert census.leases() == [f"port-{NAME}"]
    held.release()
    assert census.scan() == []
    assert census.leases() == []
    assert Port.open(identity, NAME) is None


def test_an_answer_can_be_seen_before_committed_says_that_it_counts(
    made: tuple[DirectoryIdentity, Port], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores of another processor may arrive in any order; without a fence a refusal would pass for a success."""
    identity, process = made
    attached = attach(identity, tmp_path)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(
        attached_module, "_fence", lambda: seen.append((process.words[REPLIES_WRITTEN], process.words[COMMITTED]))
    )
    attached.taken = 40
    attached.reply(40, 7)
    attached.settle()
    assert seen == [(1, 0)]
    assert process.words[COMMITTED] == 40
    assert attached.take_over(80, [(80, 7, 0)])
    assert seen == [(1, 0), (2, 40)]


def test_damaged_words_of_a_port_do_not_keep_a_writer(made: tuple[DirectoryIdentity, Port], tmp_path: Path) -> None:
    """How many answers are untaken, and how many pages of slots there are: looked through one by one."""
    identity, process = made
    process.words[REPLIES_TAKEN] = 1 << 31
    process.words[SLOT_PAGES] = 1 << 31
    attached = attach(identity, tmp_path)
    assert attached.port.slot_count() == (1 + MOST_SLOT_PAGES) * SLOTS_A_PAGE
    process.words[COMMITTED] ^= 1 << 20
    attached.restate()
    assert process.words[COMMITTED] == attached.taken == 0
    attached.port.close()
