"""The writer process: its main thread sits in ``sigtimedwait``, which is signals and tick in one."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

from keyop.errors import DataDirectoryError, KeyopError, WriterBusy
from keyop.ipc import board, layout, lease, semaphore
from keyop.ipc.names import DirectoryIdentity
from keyop.protocol.writer_options import WriterOptions
from keyop.readiness import say_ready
from keyop.storage.directory import DataDirectory
from keyop.writer.committer import Committer
from keyop.writer.log import Log
from keyop.writer.retention import Retention
from keyop.writer.start import SharedMemoryEmptied, bring_up

TICK_S = 0.5
DRAIN_S = 10.0
IDLE_CHECKPOINT_S = 60.0
# How long a foreground writer waits for an on-demand one to leave: a tick, and its drain.
TAKE_OVER_S = 15.0

EXIT_OK, EXIT_BUSY, EXIT_CRASHED, EXIT_CANNOT_START, EXIT_UNDRAINED = 0, 69, 70, 73, 75
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(
    options: WriterOptions,
    *,
    on_demand: bool,
    log: Log,
    supervised: bool = False,
    take_over: bool = False,
    turn_fd: int = -1,
    once: bool = False,
) -> int:
    """Be the writer of a data directory until told to leave; the process's exit code.

    ``supervised``: the parent holds the lease that says so. ``take_over``: a writer that runs on demand is asked to
    leave, by one that then runs on demand itself. ``once``: recover, commit what waits, leave the
    directory at rest, and that is all.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    directory = DataDirectory(options.data_dir)
    try:
        _become_owner(directory)
        directory.make()
        directory.refuse_network_file_system()
        leases = _take_leases(directory, options, on_demand and not take_over, supervised)
        if on_demand and take_over:
            leases.pop(0).release()  # what made the other one leave
        if turn_fd >= 0:
            lease.give_up(turn_fd)
    except WriterBusy as error:
        log.error("busy", why=error)
        return EXIT_BUSY
    except (DataDirectoryError, OSError) as error:
        log.error("cannot_start", why=error)
        return EXIT_CANNOT_START
    try:
        identity = DirectoryIdentity(directory.run)
    except OSError as error:
        log.error("cannot_start", why=error)
        return EXIT_CANNOT_START
    try:
        committer = bring_up(directory, identity, options, log, _Patience(log).wait)
    except (_ToldToLeaveError, SharedMemoryEmptied) as reason:
        log.info("leaving", why=reason)
        _remove_names(identity)
        return EXIT_UNDRAINED
    except (OSError, KeyopError) as error:
        log.error("cannot_start", why=error)
        _remove_names(identity)
        return EXIT_CANNOT_START
    log.info("open", directory=directory.path, mode="strict" if committer.strict else "periodic")
    say_ready()
    # What start-up made stays: the collector need not look at it again and again between two commits.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    code = _Main(directory, identity, options, committer, on_demand, log).serve(once=once)
    if code == EXIT_OK:
        for held in leases:
            held.release()
    # Else a thread may still write when a full disk has room again: only the end of the process may drop the lock.
    return code


class _ToldToLeaveError(Exception):
    """A signal came while the writer was waiting for a disk at its start. The journal stays as it is."""


class _Patience:
    """Waits for room on the disk while the writer starts."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def wait(self, error: OSError, tries: int) -> None:
        """Wait a little. Raises `_ToldToLeaveError` when a signal says so."""
        if not tries:
            self._log.error("stalled", what="start", why=error)
        received = _wait_for_signal(min(TICK_S, 0.02 * 2 ** min(tries, 5)))
        if received is not None:
            raise _ToldToLeaveError(signal.Signals(received).name)


def _remove_names(identity: DirectoryIdentity) -> None:
    """Say GONE, and leave nothing of the writer's own in shared memory."""
    board.retire(identity)
    semaphore.unlink(identity.writer_semaphore())


def _become_owner(directory: DataDirectory) -> None:
    """A writer started by root works as the directory's owner, so that everybody's files stay the owner's."""
    if os.geteuid() != 0 or not directory.path.exists():
        return
    status = directory.path.stat()
    if status.st_uid != 0:
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)


def _take_leases(
    directory: DataDirectory, options: WriterOptions, on_demand: bool, supervised: bool
) -> list[lease.Lease]:
    held = []
    if not on_demand and not supervised:
        foreground = lease.acquire(directory.run / lease.SUPERVISED)
        if foreground is None:
            raise WriterBusy(f"{directory.path}: a writer or supervisor runs in the foreground already")
        _note(foreground, f"pid {os.getpid()}\n")
        held.append(foreground)
    patience_s = lease.PATIENCE_S if on_demand else TAKE_OVER_S
    path = directory.run / lease.WRITER_LOCK
    lock = lease.acquire(path, patience_s)
    if lock is None:
        raise WriterBusy(
            f"{directory.path}: another writer runs here ({(path.read_text().splitlines() or ['no pid noted'])[0]})"
        )
    # For people, and for processes that want to know with which options it was started.
    _note(lock, "\n".join([f"pid {os.getpid()}", *options.to_arguments(), ""]))
    held.append(lock)
    return held


def _note(held: lease.Lease, text: str) -> None:
    try:
        held.note(text)
    except OSError:
        pass  # a full disk: that is no reason not to start


class _Main:
    """The main thread while the writer is open."""

    def __init__(
        self,
        directory: DataDirectory,
        identity: DirectoryIdentity,
        options: WriterOptions,
        committer: Committer,
        on_demand: bool,
        log: Log,
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._committer = committer
        self._on_demand = on_demand
        self._log = log
        self._idle_exit_s = options.idle_exit
        self._moving_tick_s = min(TICK_S, max(0.01, options.offset_flush_interval_ms / 1000))
        self._retention = Retention(directory, options, committer, log)
        self._attended_s = time.monotonic()
        self._crashed = False

    def serve(self, *, once: bool) -> int:
        """Tick until there is a reason to leave; then drain and clean up."""
        threading.excepthook = self._on_crash
        commits = threading.Thread(target=self._committer.run, name="commit", daemon=True)
        commits.start()
        reason = "all is at rest" if once else self._tick_until_reason(commits)
        self._log.info("leaving", why=reason)
        self._committer.trouble.close(layout.CLOSING)
        self._committer.stop()
        deadline_s = time.monotonic() + DRAIN_S
        while commits.is_alive() and not self._crashed and time.monotonic() < deadline_s:
            commits.join(0.1)
        if self._crashed or commits.is_alive():
            # Crash-only: the journal stays live, the next writer recovers.
            self._committer.trouble.close(layout.GONE)
            _remove_names(self._identity)
            self._log.error("left_journal_live", why="crashed" if self._crashed else f"not drained in {DRAIN_S:.0f} s")
            return EXIT_CRASHED if self._crashed else EXIT_UNDRAINED
        self._leave_nothing()
        return EXIT_OK

    def _on_crash(self, crash: threading.ExceptHookArgs) -> None:
        """Any thread that ends by an exception ends the writer: without one of them the others would wait for ever."""
        import traceback

        self._crashed = True
        for text in traceback.format_exception(crash.exc_type, crash.exc_value, crash.exc_traceback):
            for line in text.splitlines():
                self._log.error("crash", line=line)
        os.kill(os.getpid(), signal.SIGTERM)

    def _tick_until_reason(self, commits: threading.Thread) -> str:
        while True:
            received = _wait_for_signal(self._moving_tick_s if self._committer.moving else TICK_S)
            if self._crashed or not commits.is_alive():
                return "a thread crashed"
            if received is not None:
                return signal.Signals(received).name
            self._committer.request_tick()
            self._house_keeping()
            reason = self._reason_to_leave()
            if reason is not None:
                return reason

    def _house_keeping(self) -> None:
        idle_s = time.monotonic() - self._committer.last_commit_s
        if idle_s > IDLE_CHECKPOINT_S and self._committer.journal.in_use:
            self._committer.request_checkpoint()
        self._retention.tick()

    def _reason_to_leave(self) -> str | None:
        if not board.is_named(self._identity):
            return "shared memory was emptied"
        if not self._on_demand:
            return None
        if self._is_wanted_by_another():
            return "a supervised writer takes over"
        now_s = time.monotonic()
        if self._committer.census.ports:
            self._attended_s = now_s
        if self._idle_exit_s <= 0 or now_s - self._attended_s < self._idle_exit_s:
            return None
        return "nobody is attached" if self._close_unattended() else None

    def _is_wanted_by_another(self) -> bool:
        try:
            return lease.is_held(self._directory.run / lease.SUPERVISED)
        except OSError:
            return False  # a failing disk, or no descriptors: the next tick looks again

    def _close_unattended(self) -> bool:
        """Say CLOSING, then look at the leases once more: who came meanwhile looks at the state after making his."""
        self._committer.trouble.close(layout.CLOSING)
        if self._somebody_is_there():
            self._committer.trouble.open()
            return False
        return True

    def _somebody_is_there(self) -> bool:
        try:
            return bool(self._committer.census.leases())
        except OSError:
            return True  # cannot be known

    def _leave_nothing(self) -> None:
        self._committer.channels.close()
        self._committer.journal.close()
        self._committer.census.close()
        self._committer.trouble.close(layout.GONE)
        _remove_names(self._identity)


def _wait_for_signal(timeout_s: float) -> int | None:
    if sys.platform == "darwin":
        # No sigtimedwait: look at what is pending, a tick late at most.
        time.sleep(timeout_s)
        pending = signal.sigpending() & _SIGNALS
        return next(iter(pending), None)
    received = signal.sigtimedwait(_SIGNALS, timeout_s)
    # Interrupted (SIGCONT, a debugger) just when its time is over, CPython returns what happened to be in memory.
    return received.si_signo if received is not None and received.si_signo in _SIGNALS else None
