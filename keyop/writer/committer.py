"""The commit loop: round, frame, sync, segments, board, posts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from keyop.ipc import layout
from keyop.ipc.board import Board
from keyop.ipc.layout import COMMIT_ASLEEP, DATA_ASLEEP, HEAD, WRITER_ASLEEP
from keyop.ipc.semaphore import Semaphore
from keyop.ipc.word import Fence
from keyop.protocol.writer_options import WriterOptions
from keyop.storage import deletion, disk
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import Journal
from keyop.writer.attached import AttachedPort
from keyop.writer.audit import Audit
from keyop.writer.census import Census
from keyop.writer.channels import Channels, release
from keyop.writer.checkpoint import Checkpoint, Checkpointer
from keyop.writer.cursor import Cursor
from keyop.writer.cursors import Cursors
from keyop.writer.flusher import Flusher
from keyop.writer.log import Log
from keyop.writer.refused import Wait
from keyop.writer.round import Round
from keyop.writer.seen import SeenIds
from keyop.writer.spill import Spills
from keyop.writer.subscriptions import Subscriptions
from keyop.writer.trouble import Trouble

# How many cursors go into one frame: a frame has to stay within a quarter of a journal file.
_CURSORS_A_FRAME = 1000
_LOOK_EVERY_NS = 2_000_000
_BACKOFF_S = (0.02, 0.1, 0.5)
_DRAIN_WAIT_S = 0.02
# How often and how soon the writer looks again whether answers that leave no room for more were taken.
_ANSWER_LOOKS = 25
_ANSWER_WAIT_S = 0.002


class Committer:
    """Owns all tables of the writer. Everything but `request_tick` and `stop` runs in the commit thread."""

    def __init__(
        self,
        directory: DataDirectory,
        options: WriterOptions,
        board: Board,
        semaphore: Semaphore,
        census: Census,
        channels: Channels,
        cursors: Cursors,
        spills: Spills,
        seen: SeenIds,
        audit: Audit,
        log: Log,
    ) -> None:
        self.directory = directory
        self.board = board
        self.census = census
        self.channels = channels
        self.cursors = cursors
        self.log = log
        self.trouble = Trouble(board, log)
        self.strict = options.sync_interval_ms <= 0
        self.journal = Journal(
            directory.journal, options.journal_bytes, lambda errno: self.trouble.set("journal", errno)
        )
        self.journal.on_sync = board.histogram(layout.BOARD_SYNC_TIMES).note
        self._commit_times = board.histogram(layout.BOARD_COMMIT_TIMES)
        self._synced = False
        self.spills = spills
        self.subscriptions = Subscriptions(directory, channels, cursors, log)
        self.moving = False
        self.last_commit_s = time.monotonic()
        self._semaphore = semaphore
        self._flusher = None if self.strict else Flusher(self.journal, options.sync_interval_ms)
        self._checkpointer = Checkpointer(
            self.journal,
            self._checkpoint_done,
            lambda errno: self.trouble.set("checkpoint", errno),
            cursors.write_again,
            lambda path, error: log.error("not_synced", file=path, why=error.strerror),
        )
        self._finished: list[Checkpoint] = []
        self._submitted: Checkpoint | None = None
        self._checkpoints = 0
        self._dirty = Checkpoint(self.journal.current)
        self.audit = audit
        self.seen = seen
        self._round = Round(channels, cursors, self.subscriptions, self.spills, seen, audit, log)
        self._fence = Fence()
        self._spin_ns = options.spin_us * 1000 if (os.cpu_count() or 1) > 1 else 0
        self._moved: list[Cursor] = []
        self._newcomers: list[AttachedPort] = []
        self._rotation = 0
        self._waiting = 0
        self._looked_ns = 0
        # Whether it was woken since it last looked around.
        self._woken = False
        self._sleeps = board.incarnation
        self._tick_due = False
        self._checkpoint_wanted: list[Callable[[], None]] = []
        self._stop = False
        # A port in the way of a transaction is to be swept: the next round at once.
        self._again = False
        self._patience = _ANSWER_LOOKS
        self._frames = 0

    # ---- from the main thread

    def request_tick(self) -> None:
        """Have the commit thread do what is done twice a second."""
        self._tick_due = True
        self._semaphore.post()

    def request_checkpoint(self, then: Callable[[], None] = lambda: None) -> None:
        """Have the journal freed in the background, and ``then`` called in the checkpoint's thread."""
        self._checkpoint_wanted.append(then)
        self.request_tick()

    def stop(self) -> None:
        """Have the loop end once the rings are empty."""
        self._stop = True
        self._semaphore.post()

    # ---- the loop

    def run(self) -> None:
        """Commit until stopped; then drain the rings, checkpoint both files and return."""
        worked_ns = 0
        while not self._stop:
            if self.commit_round():
                worked_ns = time.perf_counter_ns()
            elif not self._spin(worked_ns):
                self._sleep()
        self._drain()
        self.file_last_words()
        self.checkpoint()

    def _drain(self) -> None:
        """Until every ring is empty. What a disk has no room for waits here, until the main thread's patience ends."""
        while True:
            if self.commit_round():
                continue
            self.census.find_dead()  # answers that a dead process has not taken are in nobody's way
            self._unblock()
            if not self._work_waiting():
                return
            time.sleep(_DRAIN_WAIT_S)

    def _unblock(self) -> None:
        self._round.unanswered = False
        for port in self.census.ports:
            port.unblock()

    def _work_waiting(self) -> bool:
        for port in self.census.ports:  # noqa: SIM110 - it is spun on, and a generator costs more
            if port.words[HEAD] != port.taken and not port.blocked:
                return True
        return False

    def _spin(self, worked_ns: int) -> bool:
        """Right after work more of it is likely; whether it came."""
        until = worked_ns + self._spin_ns
        while time.perf_counter_ns() < until:
            if self._work_waiting() or self._tick_due:
                return True
            os.sched_yield()
        return False

    def _sleep(self) -> None:
        if self._woken:
            # There was work, and no time to look around. But what woke it may have been a newcomer, or its last word.
            self._look_around()
            return
        words = self.board.words
        # A number for each sleep, never 0: who has posted for it once need not do so again.
        self._sleeps = self._sleeps % layout.MASK + 1
        words[WRITER_ASLEEP] = self._sleeps
        self._fence()
        if not (self._work_waiting() or self._tick_due or self._stop or self._again):
            if self._round.unanswered and self._patience > 0:
                # Who takes the answers that are in the way says nothing when he does.
                self._patience -= 1
                self._semaphore.wait(_ANSWER_WAIT_S)
            else:
                self._semaphore.wait()
        words[WRITER_ASLEEP] = 0
        self._woken = True
        self._unblock()
        if not self._work_waiting():
            self._look_around()

    def _look_around(self) -> None:
        """Whether somebody came or went."""
        self._welcome(self.census.look())
        if self.census.detached():
            self.census.find_dead()
        self._woken = False
        self._looked_ns = time.perf_counter_ns()

    def _welcome(self, ports: list[AttachedPort]) -> None:
        """Ports that were found: one whose memory was made anew may hold subscriptions."""
        self._newcomers += ports
        while self._newcomers:
            try:
                if self._newcomers[0] in self.census.ports:
                    self.subscriptions.adopt(self._newcomers[0], granted=True)
            except Wait:
                return  # a failing disk: the next look tries again
            del self._newcomers[0]

    # ---- one round

    def commit_round(self) -> bool:
        """Commit what is there; whether anything was."""
        if self.channels.crowded:
            self._close_segments()
        began_ns = time.perf_counter_ns()
        self._synced = False
        this = self._round
        this.clear()
        this.max_bytes = self.journal.max_frame_bytes
        ticked, self._tick_due = self._tick_due, False
        if ticked:
            self._tick()
        self._bury(this)
        if self._moved:
            this.add_cursors(self._moved[:_CURSORS_A_FRAME])
            del self._moved[:_CURSORS_A_FRAME]
        self._take(this)
        self._again = this.later and any(port.dead and not port.blocked for port in self.census.ports)
        if self._checkpoint_wanted:
            self._start_checkpoint()
        if not (this.ports or this.subscribers or this.buried):
            if ticked:
                self._file_offsets()
            return False
        self._commit(this)
        if ticked or this.closed or this.buried:
            # Before the answer: who closes a subscription is told when its offset stands in the file.
            self._file_offsets()
        if this.asking:
            self._checkpoint_for(this)
        self._settle(this)
        if self._synced:
            self._commit_times.note(time.perf_counter_ns() - began_ns)
        if self.audit.waiting:
            self.audit.flush()
        for port in this.buried:
            self.spills.bury(port.port.ring_id)
            self.census.sweep(port)
        if this.buried or this.forgotten:
            self._unblock()  # somebody may have waited for that
        self._patience = _ANSWER_LOOKS
        if time.perf_counter_ns() - self._looked_ns > _LOOK_EVERY_NS:
            self._look_around()  # under load there is no other time for it
        return True

    def _checkpoint_for(self, this: Round) -> None:
        """Frees the round's own frame, too: before that, its rings are told how far they are taken, or a successor
        would take it all again. Who asks is told behind it."""
        for port in this.ports:
            if port not in this.asking:
                port.settle()
        self.checkpoint()

    def _close_segments(self) -> None:
        """More segments are open than there are descriptors for."""
        self.channels.close_coldest()
        if self.channels.crowded:
            self.checkpoint()  # nothing is dirty behind it
            self.channels.close_coldest()

    def _take(self, this: Round) -> None:
        """A round over the rings. The start rotates, so that no ring is always last when the frame is full."""
        ports = self.census.ports
        count = len(ports)
        if not count:
            return
        self._rotation = (self._rotation + 1) % count
        for number in range(self._rotation, self._rotation + count):
            port = ports[number % count]
            if port.words[HEAD] != port.taken and not port.blocked:
                this.take(port)
                if this.deleted:
                    break
        if this.waiting or self._waiting:
            self._waiting = next((port.waits_for for port in ports if port.waits_for), 0)
            self.trouble.set("channel", self._waiting)

    def _bury(self, this: Round) -> None:
        """Dead processes whose rings are drained: their slots' last words go into this round."""
        for port in self.census.ports:
            if port.dead and port.drained:
                this.add_cursors(self.subscriptions.bury(port))
                this.buried.append(port)

    def _commit(self, this: Round) -> None:
        if not (this.logs or this.subscribers or this.forgotten or this.deleted):
            return
        if this.deleted:
            self.checkpoint()
        self._prepare(this)
        entries = this.frame_entries()
        length = sum(map(len, entries))
        if not self.journal.fits(length):
            self._make_room(length)
        self.journal.write(entries)
        if this.sync or (self.strict and this.logs):
            self.journal.sync()
            self._synced = True
        elif this.logs and self._flusher is not None:
            self._flusher.start()
        self.board.words[layout.AT_REST] = 0
        if this.spilled:
            self.spills.name(this.spilled)
            self._dirty.spills.update(spill.name for spill in this.spilled)
        self._apply(this)
        disk.step("applied")

    def _make_room(self, length: int) -> None:
        """The journal file is full, or too small for what one frame has to hold."""
        if self.journal.in_use:
            self._turn_over(full=True)
        failures = 0
        while not self.journal.fits(length):
            try:
                self.journal.make_room(length)
            except OSError as error:
                failures = self._wait("journal", error, failures)
        if failures:
            self.trouble.set("journal", 0)

    def _prepare(self, this: Round) -> None:
        """Make the segments that this round begins, while nothing is promised yet."""
        failures = 0
        for log in this.logs:
            while log.rolls:
                try:
                    log.prepare()
                    self.channels.rolled.add(log.name.decode())
                except OSError as error:
                    failures = self._wait("segment", error, failures)
                else:
                    break
        if failures:
            self.trouble.set("segment", 0)

    def _apply(self, this: Round) -> None:
        """Write the lines at exactly their offsets. The frame stands: this is tried until it succeeds."""
        failures = 0
        for log in this.logs:
            while True:
                try:
                    log.apply(self._dirty.segments)
                except OSError as error:
                    failures = self._wait("segment", error, failures)
                else:
                    break
            log.used = self._frames
        if failures:
            self.trouble.set("segment", 0)
        for name, number in this.deleted.items():
            self._delete(name, number)
        for subscriber in this.subscribers:
            subscriber.apply()
            self.cursors.unfiled.add(subscriber)
        for subscriber in this.forgotten:
            self.cursors.forget(subscriber)

    def _delete(self, name: bytes, number: int) -> None:
        failures = 0
        while True:
            try:
                deletion.put_away(self.directory, os.fsdecode(name), number)
            except OSError as error:
                failures = self._wait("deletion", error, failures)
            else:
                break
        if failures:
            self.trouble.set("deletion", 0)
        log = self.channels.drop(name)
        followers = log.followers if log is not None else set()
        for port in self.subscriptions.drop_channel(name) | followers:
            if not port.dead:
                port.port.data.post()
        self.seen.clear()
        self.log.info("channel_deleted", channel=name.decode())
        # As soon as the frame is freed, which is now.
        self._checkpoint_wanted.append(lambda: self._remove_deleted(number))

    def _remove_deleted(self, number: int) -> None:
        """In the checkpoint's thread."""
        try:
            deletion.remove(self.directory, number)
        except OSError as error:
            self.log.warning("deleted_channel_not_removed", why=error)  # the next writer removes it

    def _wait(self, what: str, error: OSError, failures: int) -> int:
        """Nothing else can be done: a full disk gets room again, and permissions are given back."""
        if error.errno not in disk.WAIT_ERRNOS and not isinstance(error, PermissionError):
            raise error
        self.trouble.set(what, error.errno or 0)
        time.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
        return failures + 1

    def _settle(self, this: Round) -> None:
        """Tell everybody: first all stores, one fence, then the looks at who sleeps. Publishers are posted first."""
        board = self.board
        for log in this.logs:
            board.set_end(log.board_place, log.end)
        for port in this.ports:
            port.settle()
        disk.step("settled")
        self._fence()
        for port in this.ports:
            if port.words[COMMIT_ASLEEP] and not port.dead:
                port.port.commit.post()
        for log in this.logs:
            for follower in log.followers:
                if follower.words[DATA_ASLEEP] and not follower.dead:
                    follower.port.data.post()
        self._count(this)

    def _count(self, this: Round) -> None:
        """For live views, when everybody is on his way."""
        board = self.board
        for log in this.logs:
            board.set_records(log.board_place, log.records)
        self._frames += 1
        self.last_commit_s = time.monotonic()
        board.set_counter("frames", self._frames)
        board.set_counter("syncs", self.journal.syncs)
        board.set_counter("refused", this.refused)

    # ---- twice a second

    def _tick(self) -> None:
        self._restate()
        self._welcome(self.census.revisit())
        self.census.find_dead()
        if self.subscriptions.release_given_up():
            self._welcome(self.census.ports)  # one of them may have been passed over at the start
        moved = self.cursors.moved()
        self.moving = bool(moved)
        self._moved += moved
        self._finish_checkpoints()
        self.board.set_counter("duplicates", self._round.duplicates)
        self.board.set_counter("audit_dropped", self.audit.dropped)

    def _restate(self) -> None:
        """Store again what is waited for in shared memory, and would never change again if it were damaged."""
        self.board.restate()
        self.trouble.restate()
        for port in self.census.ports:
            port.restate()

    def _file_offsets(self) -> None:
        trouble = self.cursors.file()
        self.trouble.set("offsets", trouble.errno or 0 if trouble else 0)

    def file_last_words(self) -> None:
        """At a stop: commit where every subscriber stands now, and write the offset files."""
        self._tick_due = True
        self.commit_round()
        while self._moved:
            self.commit_round()
        self._file_offsets()

    # ---- checkpoints

    def _turn_over(self, *, full: bool = False, then: list[Callable[[], None]] | None = None) -> None:
        """The journal file is full, or is to be freed: go over to the other, and checkpoint what was left."""
        if not self.journal.wait_free(0):
            self.log.debug("waiting_for_checkpoint")
            self.journal.wait_free()
        checkpoint = self._dirty
        checkpoint.grow = full and self.journal.filled_fast()
        self._add_offsets(checkpoint)
        checkpoint.index = self.journal.switch()
        self._dirty = Checkpoint(self.journal.current)
        checkpoint.then = then or []
        self._submit(checkpoint)

    def _add_offsets(self, checkpoint: Checkpoint) -> None:
        """Write the offset files, and have the checkpoint sync them."""
        self._finish_checkpoints()
        failures = 0
        while (error := self.cursors.file()) is not None:
            failures = self._wait("offsets", error, failures)
        if failures:
            self.trouble.set("offsets", 0)
        self._file_attempts()
        checkpoint.files |= self.cursors.unsynced_files
        checkpoint.directories |= self.cursors.unsynced_directories | self.channels.unsynced_directories
        for pending in (
            self.cursors.unsynced_files,
            self.cursors.unsynced_directories,
            self.channels.unsynced_directories,
        ):
            pending.clear()

    def _submit(self, checkpoint: Checkpoint) -> None:
        self._submitted = checkpoint
        self._checkpointer.submit(checkpoint)

    def _file_attempts(self) -> None:
        try:
            self.cursors.file_attempts()
        except OSError as error:
            self.log.warning("attempts_not_noted", why=error)  # costs repeated attempts after the next crash

    def _start_checkpoint(self) -> None:
        then, self._checkpoint_wanted = self._checkpoint_wanted, []
        if self.journal.in_use:
            self._turn_over(then=then)
            return
        # Behind the one that may be under way, whose offsets are not synced yet.
        checkpoint = Checkpoint(None)
        checkpoint.then = then
        self._add_offsets(checkpoint)
        self._submit(checkpoint)

    def checkpoint(self) -> None:
        """Bring everything to its place and free both files, before anything else is committed."""
        if self.journal.in_use:
            self._turn_over()
        if self._submitted is not None:
            self._submitted.done.wait()
        self._finish_checkpoints()

    def _checkpoint_done(self, checkpoint: Checkpoint) -> None:
        self._finished.append(checkpoint)

    def _finish_checkpoints(self) -> None:
        """Close what was synced, remove the spill files that nothing names any more."""
        while self._finished:
            checkpoint = self._finished.pop(0)
            for segment in checkpoint.segments:
                log = self.channels.by_name.get(segment.path.parent.name.encode())
                release(segment, log is not None and log.active is segment)
            self.spills.remove(checkpoint.spills)
            self._checkpoints += checkpoint.index is not None
            self.board.set_counter("checkpoints", self._checkpoints)
        if self.journal.at_rest:
            self.board.words[layout.AT_REST] = 1
