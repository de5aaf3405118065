"""Races between a process and the writer that the model of the hand-off found, each at the step where it was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import objects_of

from keyop.attachment.acknowledgements import Acknowledgements
from keyop.attachment.attachment import Attachment
from keyop.configuration.lookup import settings_for
from keyop.errors import SharedMemoryError
from keyop.ipc import board, layout, lease, port, semaphore
from keyop.ipc.names import DirectoryIdentity
from keyop.protocol import entry
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.writer.census import Census
from keyop.writer.committer import Committer
from keyop.writer.log import Log
from keyop.writer.start import SharedMemoryEmptied, bring_up

RECORD = entry.TRANSACTION.pack(0) + entry.encode(entry.APPEND, b"c", data=b"{}\n")


class Waiting:
    """In place of a semaphore: what a wait or a post does, the test says."""

    def __init__(self, on_wait: Callable[[], None] = lambda: None, on_post: Callable[[], None] = lambda: None) -> None:
        self._on_wait = on_wait
        self.post = on_post
        self.timeout_s: float | None = None

    def wait(self, timeout_s: float | None = None) -> None:
        self.timeout_s = timeout_s
        self._on_wait()


class Writer:
    """A writer in this process, whose commit thread is the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        directory = DataDirectory(str(path))
        directory.make()
        self.identity = DirectoryIdentity(directory.run)
        lock = lease.acquire(directory.run / lease.WRITER_LOCK)
        assert lock is not None
        self._lock = lock
        self._directory = directory
        self.committer = self.bring_up()
        self._attached: list[Attachment] = []

    def bring_up(self) -> Committer:
        log = Log(sink=lambda _line: None)
        options = WriterOptions(str(self.path))
        return bring_up(self._directory, self.identity, options, log, lambda error, tries: None)

    def attach(self) -> Attachment:
        attachment = Attachment(settings_for(self.path))
        self._attached.append(attachment)
        return attachment

    def leave(self) -> None:
        for attachment in self._attached:
            while self.committer.commit_round():
                pass
            attachment.close()
        self.committer.stop()
        self.committer.run()
        self.committer.channels.close()
        self.committer.journal.close()
        self.committer.census.close()
        board.retire(self.identity)
        semaphore.unlink(self.identity.writer_semaphore())
        self._lock.release()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "data")
    yield writer
    writer.leave()


def test_answers_that_have_no_room_are_waited_for_behind_a_round_without_work(writer: Writer) -> None:
    """Who takes the answers that are in the way posts nobody: a writer that forgets that sleeps until the tick."""
    committer = writer.committer
    attachment = writer.attach()
    committer._look_around()
    (writer.path / "channels/file").touch()
    refused = entry.TRANSACTION.pack(0) + entry.encode(entry.APPEND, b"file", data=b"{}\n")
    positions = [attachment.send(refused) for _ in range(layout.REPLY_SLOTS + 1)]
    semaphore = Waiting()
    committer._semaphore = semaphore  # type: ignore[assignment]
    while committer.commit_round():
        pass
    assert not attachment.is_committed(positions[-1])
    committer._sleep()
    assert semaphore.timeout_s is not None
    assert attachment.replies.collect()
    committer._sleep()
    while committer.commit_round():
        pass
    assert attachment.is_committed(positions[-1])


def test_a_newcomers_knock_that_comes_together_with_work(writer: Writer) -> None:
    """The wake-up finds work, and no time to look around; behind the work the writer must not sleep on it."""
    committer = writer.committer
    resident = writer.attach()
    committer._look_around()
    came: list[tuple[Attachment, int]] = []

    def wait() -> None:
        assert not came, "it sleeps again, and does not know the newcomer"
        newcomer = writer.attach()
        came.append((newcomer, newcomer.send(RECORD)))
        resident.send(RECORD)

    committer._semaphore = Waiting(wait)  # type: ignore[assignment]
    committer._sleep()
    committer._looked_ns = time.perf_counter_ns() + 10**10  # just now: then the look after the round is left out
    assert committer.commit_round()
    committer._sleep()
    committer.commit_round()
    (newcomer, position), *_ = came
    assert newcomer.is_committed(position)


def test_a_tick_that_finds_another_writer_posts_it(writer: Writer) -> None:
    """For what was put while this process still looked at the flag of the one before."""
    attachment = writer.attach()
    posts: list[int] = []
    real = semaphore.open_existing(writer.identity.writer_semaphore())
    assert real is not None
    tokens = real._semaphore
    while tokens.value:
        real.wait()
    attachment.writer.words = [layout.GONE] * layout.BOARD_HEADER_BYTES
    attachment.tick()
    posts.append(tokens.value)
    real.close()
    assert posts == [1]


def test_who_has_left_makes_no_port_anew(writer: Writer) -> None:
    """A tick that was under way meanwhile finds the port's name gone: the writer has swept it."""
    attachment = writer.attach()
    writer.committer._look_around()
    attachment.close()
    port.remove(writer.identity, attachment._name)
    before = objects_of(writer.path)
    attachment._remake_port_if_gone()
    assert objects_of(writer.path) == before


def test_a_post_that_was_interrupted_is_made_by_the_next_publish(writer: Writer) -> None:
    """Ctrl-C between the look at the writer's sleep and the post for it."""
    attachment = writer.attach()
    posts: list[int] = []

    def post() -> None:
        posts.append(1)
        if len(posts) == 1:
            raise KeyboardInterrupt

    link = attachment.writer
    real, link._semaphore = link._semaphore, Waiting(on_post=post)  # type: ignore[assignment]
    writer.committer.board.words[layout.WRITER_ASLEEP] = 7
    with pytest.raises(KeyboardInterrupt):
        attachment.send(RECORD)
    attachment.send(RECORD)
    attachment.send(RECORD)
    link._semaphore = real
    writer.committer._look_around()
    assert len(posts) == 2


def test_an_event_loop_is_told_that_its_ring_was_closed(writer: Writer) -> None:
    """As a thread is. A future that only a commit would resolve waits for ever."""
    attachment = writer.attach()

    async def publish() -> None:
        acknowledgements = Acknowledgements(attachment, asyncio.get_running_loop())
        try:
            positions = [await acknowledgements.send(RECORD) for _ in range(3)]
            waiting = [asyncio.ensure_future(acknowledgements.committed(position)) for position in positions]
            await asyncio.sleep(0)
            attachment._words[layout.POISONED] = 1
            attachment.commit_gate.knock()
            outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
            assert [type(outcome) for outcome in outcomes] == [SharedMemoryError] * 3
            with pytest.raises(SharedMemoryError, match="closed this process's ring"):
                await asyncio.wait_for(acknowledgements.committed(positions[-1]), 10)
        finally:
            acknowledgements.close()

    asyncio.run(publish())
    attachment._words[layout.POISONED] = 0


def test_shared_memory_emptied_while_a_recovery_runs(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer that finds no ring to tell leaves the journal: else the port, made anew, would be taken from again."""
    attachment = writer.attach()
    writer.committer._look_around()
    attachment.send(RECORD)

    def killed(_round: object) -> None:
        raise InterruptedError("killed")

    writer.committer._settle = killed  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        writer.committer.commit_round()
    scan = Census.scan

    def emptied(census: Census) -> object:
        for name in objects_of(writer.path):
            (Path("/dev/shm") / name).unlink()
        return scan(census)

    with monkeypatch.context() as patched:
        patched.setattr(Census, "scan", emptied)
        with pytest.raises(SharedMemoryEmptied):
            writer.bring_up()
    attachment._remake_port_if_gone()
    writer.committer = writer.bring_up()
    assert not writer.committer.commit_round()
    assert attachment.is_committed(attachment._ring.head)
    (segment,) = (writer.path / "channels/c").glob("*.jsonl")
    assert segment.read_bytes() == b"{}\n"
