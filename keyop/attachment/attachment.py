"""The one way in which a process meets the writer: publishers, subscribers and federation all use it.

An attachment is a port and its lease. Transactions go in with `send`; `wait` tells when they are committed. One tick
thread looks twice a second at what no semaphore may be trusted to say.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from keyop.attachment.replies import Replies
from keyop.attachment.spawn import WriterSpawner
from keyop.attachment.spilling import remove_spill, write_spill
from keyop.attachment.writer_link import GONE_BOARD, START_TIMEOUT_S, WriterLink
from keyop.configuration.settings import Settings
from keyop.errors import (
    ClosedError,
    DataDirectoryError,
    KeyopError,
    MessageTooLarge,
    PublishTimeout,
    SharedMemoryError,
)
from keyop.ipc import layout, lease, port
from keyop.ipc.gate import Gate
from keyop.ipc.layout import COMMITTED, MASK, STATE
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.port import Port
from keyop.ipc.ring import MAX_PAYLOAD_BYTES, RingProducer
from keyop.ipc.slot import Slot
from keyop.ipc.word import distance
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import channel_end

TICK_S = 0.5
MAX_TRANSACTION_BYTES = 64 << 20


class Attachment:
    """This process at one data directory. Any number of threads may use it."""

    def __init__(self, settings: Settings, logger: logging.Logger | None = None, role: int = 0) -> None:
        """Attach, starting a writer if none runs. ``logger`` takes the place of ``logging.getLogger("keyop")``.

        ``role``: one of `layout.ROLE_NAMES`, for whoever looks at who is attached.

        Raises `DataDirectoryError`, `SharedMemoryError`, `WriterUnavailable`.
        """
        # Absolute: the writer works in another directory, and this process may change its own.
        storage = replace(settings.storage, data_dir=str(Path(settings.storage.data_dir).absolute()))
        self.settings = settings = replace(settings, storage=storage)
        self.directory = DataDirectory(storage.data_dir)
        self.directory.make()
        self.closed = False
        self.logger = logger or logging.getLogger("keyop")
        self._log = self.logger.getChild("attachment")
        self._spawner = WriterSpawner(self.directory, settings, self._log)
        # Called by the tick, twice a second.
        self.tick_listeners: list[Callable[[], None]] = []
        # Counts how often shared memory was made anew: who holds views of it looks at this.
        self.generation = 0
        self._role = role
        # Counts the ticks: who waits looks at the files themselves once in each.
        self.ticks = 0
        try:
            self.identity = DirectoryIdentity(self.directory.run)
            self._attach()
        except PermissionError as error:
            owner = os.stat(self.directory.path).st_uid
            raise DataDirectoryError(
                f"{self.directory.path}: belongs to user {owner}, and this is user {os.geteuid()}, who may not write "
                f"{error.filename}: all processes run as the owner, or as root"
            ) from error
        except OSError as error:
            raise DataDirectoryError(f"{self.directory.path}: cannot be attached to: {error}") from error
        _live.add(self)  # now: a fork in another thread meanwhile is to find the lease
        try:
            self.writer.reach(time.monotonic() + START_TIMEOUT_S, self._remake_port_if_gone)
        except BaseException:
            _live.discard(self)
            self._leave()
            raise
        self._start_tick()

    def _attach(self) -> None:
        """Lease first under its draft name, then the port, then the name by which the writer finds both."""
        self._orphaned = False
        self._name = os.urandom(4).hex()
        self._lock = threading.Lock()
        self._slot_lock = threading.RLock()
        self._spills = 0
        self.writer = WriterLink(self.directory, self.identity, self._spawner)
        self._lease = lease.create_port_lease(self.directory.run, self._name)
        try:
            self._port = Port.create(self.identity, self._name, self._role)
            self._lease.note(f"pid {os.getpid()}\n")
            if self.identity.owner[0] != os.geteuid():
                os.fchown(self._lease.fd, *self.identity.owner)
            lease.publish_port_lease(self._lease, self._name)
        except BaseException:
            port.remove(self.identity, self._name)
            self._remove_lease()
            self._lease.release()
            raise
        self._words = self._port.words
        self._ring = RingProducer(self._port.memory)
        self.replies = Replies(self._port)
        self.commit_gate = Gate(self._port.commit, self._words, layout.COMMIT_ASLEEP)
        self.data_gate = Gate(self._port.data, self._words, layout.DATA_ASLEEP)

    def channel_end(self, channel: str) -> int:
        """Where a channel ends, in bytes: by the board, else by its files."""
        board = self.writer.board
        place = board.find(channel.encode())
        end = board.end(place) if place is not None else None
        return channel_end(self.directory.channel(channel)) if end is None else end

    # ---- transactions

    def send(self, transaction: bytes, deadline: float | None = None) -> int:
        """Hand a transaction to the writer; the ring position behind it, for `wait`.

        Waits while the ring is full. Raises `PublishTimeout` if it could not be handed over before ``deadline``
        (nothing of it is written then), `ClosedError`, `WriterUnavailable`.
        """
        if len(transaction) > MAX_PAYLOAD_BYTES:
            return self._send_spilled(transaction, deadline)
        while True:
            if self.writer.words[STATE] >= layout.CLOSING:
                self._renew(deadline)
            with self._lock:
                position = self._put(transaction)
            if position is not None:
                break
            self._wait_for_room(len(transaction), deadline)
        self.writer.wake()
        return position

    def try_send(self, transaction: bytes) -> int | None:
        """As `send`, but None where that would have to wait, spill, or look for a writer."""
        if len(transaction) > MAX_PAYLOAD_BYTES or self.writer.words[STATE] >= layout.CLOSING:
            return None
        with self._lock:
            position = self._put(transaction)
        if position is not None:
            self.writer.wake()
        return position

    @staticmethod
    def fits_ring(transaction: bytes) -> bool:
        """Whether it goes through the ring as it is; else it is spilled."""
        return len(transaction) <= MAX_PAYLOAD_BYTES

    def room_for(self, transaction: bytes) -> int:
        """When this position is committed, the ring has room for the transaction, unless another one takes it."""
        return self._ring.after(len(transaction)) - layout.RING_SIZE_BYTES & MASK

    def _put(self, transaction: bytes) -> int | None:
        if self.closed:
            raise ClosedError("this messenger is closed")
        ring, expected = self._ring, self.replies.expected
        after = ring.after(len(transaction))
        expected.add(after)
        position = ring.put(transaction)
        if position is None:
            expected.discard(after)
        return position

    def accepted(self, position: int) -> bool:
        """Whether a periodic publish may return now: the record is in memory that survives every process.

        Nobody will ask for its answer then.
        """
        words = self.writer.words
        if words[STATE] != layout.OPEN or not words[layout.SYNC_INTERVAL_MS] or self._words[layout.POISONED]:
            return False
        self.replies.expected.discard(position)
        return True

    def is_committed(self, position: int) -> bool:
        """Whether the writer has committed (or refused) all up to a position."""
        return not (self._words[COMMITTED] - position & MASK) >> 31

    def wait(self, position: int, deadline: float | None = None) -> None:
        """Return when the position is committed. Raises `PublishTimeout`."""

        def settled() -> bool:
            words = self._words  # not kept: shared memory may be made anew meanwhile
            return not (words[COMMITTED] - position & MASK) >> 31 or bool(words[layout.POISONED])

        if self.commit_gate.wait(settled, deadline):
            if not self.is_committed(position):
                self.refuse_poisoned()
            return
        raise self.timed_out(position)

    def timed_out(self, position: int) -> PublishTimeout:
        """The exception for a transaction that is not committed in time; nobody will ask for its answer then."""
        self.replies.expected.discard(position)
        return PublishTimeout(
            "not committed within the time limit; the message may still be committed later "
            f"(the writer is {self.writer.state()})"
        )

    def transact(self, transaction: bytes, channel: str, deadline: float | None = None) -> list[int]:
        """Send, wait, and return the values of the answer; a refusal is raised as its exception."""
        position = self.send(transaction, deadline)
        self.wait(position, deadline)
        return self.replies.of(position, channel)

    def _wait_for_room(self, length: int, deadline: float | None) -> None:
        self.writer.knock()
        self.refuse_poisoned()

        def room() -> bool:
            # COMMITTED first, and HEAD as it is by then: what another thread has put in meanwhile may be committed too.
            committed = self._words[COMMITTED]
            used = self._ring.head - committed & MASK
            return layout.RING_SIZE_BYTES - used >= length + 8 or self.writer.words[STATE] >= layout.CLOSING

        if not self.commit_gate.wait(room, deadline):
            raise PublishTimeout(
                "the message could not be handed to the writer within the time limit: nothing of it was published "
                f"(the writer is {self.writer.state()})"
            )

    @property
    def is_poisoned(self) -> bool:
        """Whether the writer has closed this process's ring: nothing more of it will be committed."""
        return bool(self._words[layout.POISONED])

    @property
    def lost(self) -> int:
        """How many cursors the writer has taken from this process, because their channels were deleted."""
        return int(self._words[layout.LOST])

    def refuse_poisoned(self) -> None:
        """Raise `SharedMemoryError` if the writer has closed this process's ring."""
        if self.is_poisoned:
            raise SharedMemoryError(
                "the writer has closed this process's ring, because what stood in it was damaged; what was committed "
                "before is safe, restart this process to go on"
            )

    def _send_spilled(self, transaction: bytes, deadline: float | None) -> int:
        if len(transaction) > MAX_TRANSACTION_BYTES:
            raise MessageTooLarge(
                f"a transaction of {len(transaction)} bytes is over the limit of {MAX_TRANSACTION_BYTES}; split it"
            )
        if self.writer.words[STATE] >= layout.CLOSING:
            self._renew(deadline)  # the ring's id names the file
        with self._lock:
            if self.closed:
                raise ClosedError("this messenger is closed")
            self._spills += 1
            path = self.directory.spill / f"{self._port.ring_id:016x}-{self._spills}"
        (flags,) = entry.TRANSACTION.unpack_from(transaction)
        reference = write_spill(path, transaction[entry.TRANSACTION.size :], deadline)
        try:
            position = self.send(entry.TRANSACTION.pack(flags | entry.SPILL) + reference, deadline)
        except BaseException:
            remove_spill(path)
            raise
        self.replies.spilled[position] = path
        return position

    def _renew(self, deadline: float | None) -> None:
        """The writer has left: reach the next one, starting it if nobody has."""
        with self._slot_lock:
            if self.closed:
                raise ClosedError("this messenger is closed")
            if self.writer.words[STATE] < layout.CLOSING:
                return
            if self._orphaned:
                self._attach()
                self._start_tick()
            limit = time.monotonic() + START_TIMEOUT_S
            try:
                self.writer.reach(limit if deadline is None else min(limit, deadline), self._remake_port_if_gone)
            except FileNotFoundError as error:
                raise DataDirectoryError(
                    f"{self.directory.path}: was removed or moved away under this process; make a new messenger"
                ) from error

    # ---- slots

    def take_slot(self, channel: bytes, id: bytes, flags: int, part: int = 0, parts: int = 1) -> Slot:
        """A free slot, with its names written. Raises `SharedMemoryError` if a further page cannot be made."""
        with self._slot_lock:
            slot = self._free_slot()
            slot.occupy(channel, id, flags, part, parts)
            return slot

    def take_peer_slot(self, name: bytes, address: bytes) -> Slot:
        """A free slot for how it stands with a peer of hub or client. Raises `SharedMemoryError`."""
        with self._slot_lock:
            slot = self._free_slot()
            slot.occupy_peer(name, address)
            return slot

    def take_published_slot(self, channel: bytes) -> Slot | None:
        """A free slot for a channel that this process publishes to; None if there is none: no page is made for it."""
        with self._slot_lock:
            for index in reversed(range(self._port.slot_count())):
                slot = self._port.slot(index)
                if slot.is_free:
                    slot.occupy_published(channel)
                    return slot
            return None

    def _free_slot(self) -> Slot:
        count = self._port.slot_count()
        for index in range(count):
            slot = self._port.slot(index)
            if slot.is_free:
                return slot
        self._port.add_slot_page()
        return self._port.slot(count)

    def slot(self, index: int) -> Slot:
        """A slot that was taken, where it lies now."""
        return self._port.slot(index)

    @property
    def ring_used_bytes(self) -> int:
        """How much of the ring, of `layout.RING_SIZE_BYTES`, waits for the writer."""
        return max(0, distance(self._ring.head, self._words[COMMITTED]))

    # ---- the tick

    def _start_tick(self) -> None:
        threading.Thread(target=_tick_loop, args=(weakref.ref(self),), name="keyop-tick", daemon=True).start()

    def tick(self) -> None:
        """Look at what a lost wake-up or a dead writer would hide."""
        if self.closed:
            return
        self.ticks += 1
        another = self.writer.words[STATE] >= layout.CLOSING or self.writer.is_replaced()
        if another and self.writer.map_board(self._remake_port_if_gone):
            self.writer.knock()  # for what was sent with an eye on the one before
        if self.commit_gate.busy:
            self.commit_gate.knock()
        if self.data_gate.busy:
            self.data_gate.knock()
        if self.replies.collect():
            self.writer.knock()  # it takes nothing from a ring whose answers nobody takes
        self._spawner.reap()
        if not self._spawner.writer_lives():
            self._replace_writer()
        for listener in self.tick_listeners:
            listener()

    def _replace_writer(self) -> None:
        """No writer: whoever needs one starts it. Waiting threads are not told, their wait goes on."""
        self._remake_port_if_gone()
        undrained = distance(self._ring.head, self._words[COMMITTED]) > 0
        if undrained or self.commit_gate.busy or self.data_gate.busy:
            self._spawner.spawn()

    def _remake_port_if_gone(self) -> None:
        """If somebody emptied /dev/shm (logind's RemoveIPC does when a user's last session ends): make the port anew.

        Copies what is still mapped, ids included, into objects of the same names. Called when no writer has the old
        ones mapped: there is none, or it came after they were gone.
        """
        with self._slot_lock, self._lock:
            path = f"/dev/shm{self.identity.port(self._name)}"
            if self.closed or self._orphaned or not os.path.isdir("/dev/shm") or os.path.exists(path):
                return  # of one that has left it is the writer that removed it
            self._log.warning("%s: shared memory was emptied; this process makes its port anew", self.directory.path)
            self._port.remake(self._name)
            self._words = self._port.words
            self._ring = RingProducer(self._port.memory)
            self.commit_gate.move(self._port.commit, self._words)
            self.data_gate.move(self._port.data, self._words)
            self.generation += 1

    # ---- the end

    def drain(self, deadline: float | None) -> bool:
        """Wait until all that was sent is committed; whether it is."""
        try:
            self.wait(self._ring.head, deadline)
        except KeyopError:
            return False
        return True

    def close(self, timeout_s: float = 10.0) -> bool:
        """Wait until all is committed, and leave; whether it was. What was not is drained by the writer later."""
        with self._lock:
            if self.closed:
                return True
        drained = self.drain(time.monotonic() + timeout_s)
        with self._lock:
            self.closed = True
        _live.discard(self)
        self._leave()
        return drained

    def _leave(self) -> None:
        """Give the lease up and tell the writer; it removes lease and port."""
        self.closed = True
        self.tick_listeners.clear()  # a circle: mappings, with a descriptor each, would stay until it is collected
        self._words[layout.DETACHED] = 1
        self._lease.release()
        self._spawner.leave()
        if not self.writer.was_reached:
            # No writer ever saw this port.
            port.remove(self.identity, self._name)
            self._remove_lease()
        self.writer.knock()

    def _remove_lease(self) -> None:
        try:
            self._lease.path.unlink(missing_ok=True)
        except OSError:
            pass  # a failing disk: the next writer removes what nobody holds

    def _orphan(self) -> None:
        """In a child process, right after fork: the parent's port is not ours, its locks may be held for ever.

        The state GONE sends the next `send` to `_renew`, which attaches anew; publishing pays nothing for the check.
        """
        if self._lease.fd >= 0:
            os.close(self._lease.fd)
            self._lease.fd = -1
        self._orphaned = True
        self._lock = threading.Lock()
        self._slot_lock = threading.RLock()
        self.writer.words = GONE_BOARD
        self.tick_listeners.clear()

    @property
    def orphaned(self) -> bool:
        """Whether this object came into a child process by fork and was not used there yet."""
        return self._orphaned


def _tick_loop(reference: weakref.ref[Attachment]) -> None:
    """`time.sleep`, because `Event.wait` follows the wall clock on musl."""
    while True:
        time.sleep(TICK_S)
        attachment = reference()
        if attachment is None or attachment.closed:
            return
        try:
            attachment.tick()
        except (OSError, KeyopError) as error:
            attachment._log.warning("tick: %s", error)
        del attachment


_live: weakref.WeakSet[Attachment] = weakref.WeakSet()


@atexit.register
def _drain_at_exit() -> None:
    """Daemon threads do not hold up the interpreter; what they handed over is committed before it ends."""
    for attachment in list(_live):
        if not attachment.orphaned and not attachment.close():
            attachment._log.warning("%s: not all was committed at exit; the writer goes on", attachment.directory.path)


def _after_fork_in_child() -> None:
    for attachment in list(_live):
        attachment._orphan()


os.register_at_fork(after_in_child=_after_fork_in_child)
