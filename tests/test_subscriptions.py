"""What a writer that starts takes up from the slots of processes that outlived the last one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from child import kill_writer
from inbox import DEADLINE_S, Inbox

from keyop import Messenger
from keyop.ipc import lease
from keyop.ipc.layout import SLOT_ASKED, SLOT_IN_USE
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.slot import Slot
from keyop.protocol import entry
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.writer.attached import AttachedPort
from keyop.writer.census import Census
from keyop.writer.committer import Committer
from keyop.writer.log import Log
from keyop.writer.refused import Refused
from keyop.writer.start import bring_up
from keyop.writer.subscriptions import Subscriptions


@contextmanager
def nobody_starts_a_writer(m: Messenger) -> Iterator[None]:
    m._attachment.tick = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del m._attachment.tick


@contextmanager
def brought_up(data_dir: Path) -> Iterator[Committer]:
    """A writer in this process, as it is when its board says OPEN."""
    directory = DataDirectory(data_dir)
    lock = lease.acquire(directory.run / lease.WRITER_LOCK)
    assert lock is not None
    options = WriterOptions(str(data_dir))
    committer = bring_up(directory, DirectoryIdentity(directory.run), options, Log("text", "info"), lambda *_: None)
    try:
        yield committer
    finally:
        committer.channels.close()
        committer.journal.close()
        committer.census.close()
        lock.release()


def as_asked(m: Messenger) -> Slot:
    """As if the answer had not been seen yet."""
    slot = m._attachment.slot(0)
    slot._words[slot._word + SLOT_IN_USE] = SLOT_ASKED
    return slot


def test_a_grant_that_is_seen_while_the_writer_starts(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process marks it between the look for what was granted and the look for what may have been."""
    adopt = Subscriptions.adopt
    with Messenger(data_dir) as m:
        inbox = Inbox()
        m.subscribe("c", "s", inbox, exactly_once=True)
        with nobody_starts_a_writer(m):
            kill_writer(data_dir)
            slot = as_asked(m)

            def adopt_slowly(self: Subscriptions, port: AttachedPort, *, granted: bool) -> None:
                adopt(self, port, granted=granted)
                slot.grant()

            monkeypatch.setattr(Subscriptions, "adopt", adopt_slowly)
            with brought_up(data_dir) as committer:
                assert committer.cursors.by_key[b"c", b"s"].cursors[0].holder in committer.census.ports
        m.publish("c", 1, payload_type="t")
        assert inbox.next().payload == 1


@pytest.mark.parametrize("dead_first", [True, False])
def test_a_dead_process_does_not_hold_what_another_may_have_been_granted(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, dead_first: bool
) -> None:
    """The last writer had buried it, and granted the id anew in the same frame; then it was killed."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        inbox = Inbox()
        m.subscribe("c", "s", inbox)
        other.publish_batch("c", range(3), payload_type="t")
        inbox.take(3)
        assert m.drain(DEADLINE_S)
        with nobody_starts_a_writer(m), nobody_starts_a_writer(other):
            kill_writer(data_dir)
            other._attachment.take_slot(b"c", b"s", 0)
            die(m, monkeypatch)
            scan = Census.scan

            def scan_in_order(self: Census) -> list[AttachedPort]:
                found = scan(self)
                self.ports.sort(key=lambda port: (port.name == m._attachment._name) != dead_first)
                return found

            monkeypatch.setattr(Census, "scan", scan_in_order)
            with brought_up(data_dir) as committer:
                (cursor,) = committer.cursors.by_key[b"c", b"s"].cursors
                assert cursor.holder is not None
                assert cursor.holder.name == other._attachment._name
                # And what it had handled is not forgotten.
                assert cursor.offset == committer.channels.open(b"c").end
            other._attachment.slot(0).vacate()
            monkeypatch.undo()


def opening(slot: int = 0) -> entry.Entry:
    data = entry.OPENING.pack(0, 1, slot)
    item = entry.encode(entry.OPEN, b"c", b"s", data=data)
    return next(entry.decode(item, 0, len(item)))


def moving(old: int, new: int) -> entry.Entry:
    item = entry.encode(entry.CURSOR, b"c", b"s", value=new, data=entry.CURSOR_MOVE.pack(old, 99, 0))
    return next(entry.decode(item, 0, len(item)))


def test_who_has_given_up_a_subscription_does_not_hold_it(data_dir: Path) -> None:
    """The last writer was killed when it had committed that, and before the process knew: its slot still stood."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m), nobody_starts_a_writer(other):
            kill_writer(data_dir)
            other._attachment.take_slot(b"c", b"s", 0)
            with brought_up(data_dir) as committer:
                port = port_of(committer, other)
                with pytest.raises(Refused):
                    committer.subscriptions.check_open(port, opening())
                m._attachment.slot(0).vacate()
                committer.subscriptions.check_open(port, opening())
                assert committer.cursors.by_key[b"c", b"s"].cursors[0].holder is None
            other._attachment.slot(0).vacate()


@pytest.mark.parametrize("by_move", [True, False], ids=["move", "tick"])
def test_who_was_granted_it_then_holds_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch, by_move: bool) -> None:
    """Both slots stood when the writer started, and the wrong one was looked at first."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m), nobody_starts_a_writer(other):
            kill_writer(data_dir)
            slot = other._attachment.take_slot(b"c", b"s", 0)
            slot.cursor_writer()(50, 0, 0)
            slot.grant()
            look_first_at(m, monkeypatch)
            with brought_up(data_dir) as committer:
                (cursor,) = committer.cursors.by_key[b"c", b"s"].cursors
                assert cursor.holder is port_of(committer, m)
                m._attachment.slot(0).vacate()
                if by_move:
                    committer.subscriptions.check_move(port_of(committer, other), moving(0, 0))
                else:
                    committer._tick()
                assert cursor.holder is port_of(committer, other)
                assert cursor.moves == 50
            slot.vacate()
            monkeypatch.undo()


def test_a_slot_that_has_been_left_is_not_taken_up(data_dir: Path) -> None:
    """It is committed that the subscription is given up; the process has not heard it, and another one may hold it."""
    with Messenger(data_dir) as m, Messenger(data_dir) as other:
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m), nobody_starts_a_writer(other):
            kill_writer(data_dir)
            m._attachment.slot(0).leave()
            other._attachment.take_slot(b"c", b"s", 0)
            with brought_up(data_dir) as committer:
                assert committer.cursors.by_key[b"c", b"s"].cursors[0].holder is port_of(committer, other)
            other._attachment.slot(0).vacate()
            m._attachment.slot(0).grant()


@pytest.mark.parametrize("when", ["before the start", "after it"])
def test_of_one_that_is_just_being_left_the_last_word_counts(data_dir: Path, when: str) -> None:
    """What says so is not committed yet, or not even in the ring."""
    close = entry.TRANSACTION.pack(0) + entry.encode(entry.CLOSE, b"c", b"s")
    with Messenger(data_dir) as m:
        m.publish_batch("c", range(3), payload_type="t")
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m):
            kill_writer(data_dir)
            slot = m._attachment.slot(0)
            claim = slot.cursor()
            assert claim is not None
            slot.cursor_writer()(claim.moves + 1, 0, 0)
            slot.leave()
            if when == "before the start":
                m._attachment.send(close)
            with brought_up(data_dir) as committer:
                if when == "after it":
                    m._attachment.send(close)
                committer.commit_round()
                (cursor,) = committer.cursors.by_key[b"c", b"s"].cursors
                assert (cursor.holder, cursor.offset, cursor.moves) == (None, 0, claim.moves + 1)
            slot.vacate()


@pytest.mark.parametrize("now", ["a subscription", "a channel that is published to"])
def test_a_slot_that_is_somebody_elses_now_holds_nothing(data_dir: Path, now: str) -> None:
    """What the process stores there would be taken for the place of the one that it has given up."""
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m):
            kill_writer(data_dir)
            with brought_up(data_dir) as committer:
                (cursor,) = committer.cursors.by_key[b"c", b"s"].cursors
                slot = m._attachment.slot(0)
                slot.vacate()
                if now == "a subscription":
                    slot.occupy(b"other", b"x", 0)
                    slot.cursor_writer()(1000, 7, 0)
                else:
                    slot.occupy_published(b"other")
                committer._tick()
                assert (cursor.holder, cursor.offset) == (None, 0)
            slot.vacate()


def port_of(committer: Committer, m: Messenger) -> AttachedPort:
    return next(port for port in committer.census.ports if port.name == m._attachment._name)


def look_first_at(m: Messenger, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Census.scan

    def scan_in_order(self: Census) -> list[AttachedPort]:
        found = scan(self)
        self.ports.sort(key=lambda port: port.name != m._attachment._name)
        return found

    monkeypatch.setattr(Census, "scan", scan_in_order)


def die(m: Messenger, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a writer this process is dead."""
    holding = lease.is_held
    name = f"{lease.PORT_PREFIX}{m._attachment._name}"
    monkeypatch.setattr(lease, "is_held", lambda path: path.name != name and holding(path))


def test_a_grant_that_a_dead_process_has_not_seen_counts_for_nobody(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has handled nothing; and another one may have been granted the same id."""
    with Messenger(data_dir) as m:
        m.subscribe("c", "s", print)
        with nobody_starts_a_writer(m):
            kill_writer(data_dir)
            as_asked(m)
            with brought_up(data_dir) as committer:
                (cursor,) = committer.cursors.by_key[b"c", b"s"].cursors
                assert cursor.holder is not None
            die(m, monkeypatch)
            with brought_up(data_dir) as committer:
                cursor_or_none = committer.cursors.find((b"c", b"s"), 0)
                assert cursor_or_none is None or cursor_or_none.holder is None
            monkeypatch.undo()
