"""A port: what one attached process shares with the writer. See `layout` for what lies where."""

from __future__ import annotations

import os
from typing import NamedTuple

from keyop.errors import SharedMemoryError
from keyop.ipc import layout, memory, semaphore
from keyop.ipc.memory import Memory
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.semaphore import Semaphore
from keyop.ipc.slot import Slot

_REPLY_CHECK = layout.CHECK


class Reply(NamedTuple):
    """The writer's answer to the record that ends at ``position``."""

    position: int
    code: int
    value: int


class Port:
    """A mapped port with its two semaphores, on either side."""

    def __init__(self, name: str, shared: Memory, commit: Semaphore, data: Semaphore, identity: DirectoryIdentity):
        self.name = name
        self.memory = shared
        self.words = shared.words
        self.commit = commit
        self.data = data
        self._identity = identity
        self._pages = [shared]

    # ---- life

    @classmethod
    def create(cls, identity: DirectoryIdentity, name: str, role: int = 0) -> Port:
        """The process's side: make the memory and both semaphores. Raises `SharedMemoryError`, leaving nothing."""
        try:
            shared = memory.create(identity.port(name), layout.PORT_SIZE_BYTES, identity.owner)
        except FileExistsError as error:
            raise SharedMemoryError(f"shared memory {identity.port(name)} exists already") from error
        try:
            commit = semaphore.create(identity.commit_semaphore(name), identity.owner)
            data = semaphore.create(identity.data_semaphore(name), identity.owner)
        except SharedMemoryError:
            remove(identity, name)
            raise
        ring_id = int.from_bytes(os.urandom(8), "little")
        shared.words[layout.RING_LO] = ring_id & layout.MASK
        shared.words[layout.RING_HI] = ring_id >> 32
        shared.words[layout.ROLE] = role
        shared.stamp(layout.PORT_MAGIC, identity.id)
        return cls(name, shared, commit, data, identity)

    @classmethod
    def open(cls, identity: DirectoryIdentity, name: str) -> Port | None:
        """The writer's side: map what a process made; None if there is no such port. Raises `SharedMemoryError`."""
        shared = memory.open_existing(identity.port(name), identity.owner_uids)
        if shared is None:
            return None
        fault = shared.fault(layout.PORT_MAGIC, identity.id)
        if fault is None and shared.size != layout.PORT_SIZE_BYTES:
            fault = f"it has {shared.size} bytes"
        commit = semaphore.open_existing(identity.commit_semaphore(name))
        data = semaphore.open_existing(identity.data_semaphore(name))
        if fault is not None or commit is None or data is None:
            shared.close()
            raise SharedMemoryError(f"port {identity.port(name)}: {fault or 'a semaphore is missing'}")
        return cls(name, shared, commit, data, identity)

    def close(self) -> None:
        """Unmap; the names stay."""
        for page in self._pages:
            page.close()
        self.commit.close()
        self.data.close()

    def remake(self, name: str) -> None:
        """The process's side, when the names are gone: new objects with the contents of those still mapped.

        The old ones stay mapped: other threads may hold views of them. The port itself comes last and its first word
        at the very end, because a writer may look meanwhile. Raises `SharedMemoryError`.
        """
        remove(self._identity, name, len(self._pages))
        commit = semaphore.create(self._identity.commit_semaphore(name), self._identity.owner)
        data = semaphore.create(self._identity.data_semaphore(name), self._identity.owner)
        pages: list[Memory] = []
        for number, page in reversed(list(enumerate(self._pages))):
            page_name = self._identity.slot_page(name, number) if number else self._identity.port(name)
            fresh = memory.create(page_name, page.size, self._identity.owner)
            fresh.buffer[4:] = page.buffer[4:]
            fresh.words[layout.MAGIC] = page.words[layout.MAGIC]
            pages.insert(0, fresh)
        self.commit, self.data = commit, data
        self._pages = pages
        self.memory = pages[0]
        self.words = pages[0].words

    # ---- what stands in it

    @property
    def pid(self) -> int:
        """The process that made it: for people to read, never to decide who is alive."""
        return int(self.words[layout.PID])

    @property
    def role(self) -> int:
        """One of `layout.ROLE_NAMES`, or 0."""
        return int(self.words[layout.ROLE])

    @property
    def ring_id(self) -> int:
        """The random 64-bit id by which journal frames name this ring."""
        return int(self.words[layout.RING_LO] | self.words[layout.RING_HI] << 32)

    def slot(self, index: int) -> Slot:
        """Slot ``index``; beyond the first page in further objects, made by the process as they are needed."""
        page = index // layout.SLOTS_A_PAGE
        while page >= len(self._pages):
            self._pages.append(self._map_page(len(self._pages)))
        return Slot(self._pages[page], index)

    def slot_count(self) -> int:
        """How many slots there are now."""
        return (1 + min(int(self.words[layout.SLOT_PAGES]), layout.MOST_SLOT_PAGES)) * layout.SLOTS_A_PAGE

    def add_slot_page(self) -> None:
        """The process's side: make another page of slots. Raises `SharedMemoryError`."""
        page = len(self._pages)
        if page > layout.MOST_SLOT_PAGES:
            raise SharedMemoryError(f"a process has at most {self.slot_count()} subscriptions")
        name = self._identity.slot_page(self.name, page)
        shared = memory.create(name, layout.SLOT_PAGE_SIZE_BYTES, self._identity.owner)
        shared.stamp(layout.SLOTS_MAGIC, self._identity.id)
        self._pages.append(shared)
        self.words[layout.SLOT_PAGES] = page

    def _map_page(self, page: int) -> Memory:
        name = self._identity.slot_page(self.name, page)
        shared = memory.open_existing(name, self._identity.owner_uids)
        if shared is None or shared.fault(layout.SLOTS_MAGIC, self._identity.id):
            raise SharedMemoryError(f"slots {name} of port {self.name} are missing")
        return shared

    # ---- replies

    def reply_room(self) -> int:
        """The writer's side: how many replies can be written before the process takes some."""
        words = self.words
        return layout.REPLY_SLOTS - (words[layout.REPLIES_WRITTEN] - words[layout.REPLIES_TAKEN] & layout.MASK)

    def write_reply(self, reply: Reply) -> None:
        """The writer's side: write one reply; it counts once COMMITTED has passed its position."""
        words = self.words
        written = words[layout.REPLIES_WRITTEN]
        at = layout.REPLIES + written % layout.REPLY_SLOTS * layout.REPLY_WORDS
        lo, hi = reply.value & layout.MASK, reply.value >> 32
        words[at] = reply.position
        words[at + 1] = reply.code
        words[at + 2] = lo
        words[at + 3] = hi
        words[at + 4] = reply.position ^ reply.code ^ lo ^ hi ^ _REPLY_CHECK
        words[layout.REPLIES_WRITTEN] = written + 1 & layout.MASK

    def read_reply(self, number: int) -> Reply | None:
        """Reply ``number`` (free-running); None while its words are not all there."""
        words = self.words
        at = layout.REPLIES + number % layout.REPLY_SLOTS * layout.REPLY_WORDS
        position, code, lo, hi = words[at], words[at + 1], words[at + 2], words[at + 3]
        if words[at + 4] != position ^ code ^ lo ^ hi ^ _REPLY_CHECK:
            return None
        return Reply(position, code, lo | hi << 32)


def remove(identity: DirectoryIdentity, name: str, pages: int = 0) -> None:
    """Remove all names of a port."""
    memory.unlink(identity.port(name))
    for page in range(1, pages + 1):
        memory.unlink(identity.slot_page(name, page))
    semaphore.unlink(identity.commit_semaphore(name))
    semaphore.unlink(identity.data_semaphore(name))
