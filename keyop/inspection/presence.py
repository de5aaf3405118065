"""Who is at a data directory, seen from outside: the writer, the attached processes, their subscriptions.

Looks at leases and shared memory, takes part in nothing, makes nothing. In another container (without its /dev/shm)
the leases still tell who lives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from keyop.errors import SharedMemoryError
from keyop.ipc import layout, lease
from keyop.ipc.board import Board
from keyop.ipc.names import DirectoryIdentity
from keyop.ipc.port import Port
from keyop.ipc.slot import Slot
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory


@dataclass(frozen=True, slots=True)
class LiveSubscription:
    """A subscription of a living process, from its slot."""

    channel: str
    id: str
    pid: int
    offset: int | None
    """Where its next message begins, in bytes; None where the slot does not decide that (``exactly_once``)."""
    attempts: int | None
    """How often that message's handler was begun; None as above."""
    handled: int
    failed: int
    dead_lettered: int
    part: int = 1
    """Which of ``parts`` that share the work of the id, counted from 1."""
    parts: int = 1


@dataclass(frozen=True, slots=True)
class LivePeer:
    """How a hub or a client stands with another host. Ages are in seconds, and up to half a second old themselves."""

    name: str
    """The CN of its certificate; empty while that is not known."""
    address: str
    """Where it is, or was last."""
    state: str
    """``connected``, ``away``, or ``refused``: it is there, and does not let this host in."""
    since_s: float | None
    """How long it is in this state; None: away, and not seen since this process began."""
    round_trip_ms: float | None
    """Of the last batch: the network, and the peer's disk."""
    behind_bytes: int
    """How much of its channels it has not acknowledged."""
    sent: int
    """Messages that it has acknowledged since this process began."""
    sent_per_min: int
    sent_ago_s: float | None
    """When it last acknowledged something; None: not since this process began."""
    waiting_bytes: int
    """How much of what it sent is not committed yet. What it has not sent yet stands in its own status."""
    received: int
    """Messages that it has brought."""
    received_per_min: int
    received_ago_s: float | None
    """When something of it was last committed."""


@dataclass(frozen=True, slots=True)
class AttachedProcess:
    """A process with a port."""

    port: str
    pid: int | None
    """None if its shared memory cannot be seen from here."""
    role: str
    """``hub``, ``client``, ``subscriber`` if it has subscriptions, else ``publisher``; ``unknown`` if its memory cannot
    be seen."""
    alive: bool
    """Whether it holds its lease. A dead one's port waits for the writer to be drained."""
    subscriptions: list[LiveSubscription] = field(default_factory=list)
    peers: list[LivePeer] = field(default_factory=list)
    """Of a hub or a client: the other hosts."""


@dataclass(frozen=True, slots=True)
class WriterState:
    """What the board says of the living writer."""

    state: str
    sync_interval_ms: int
    stall_errno: int
    counters: dict[str, int]


def writer_lives(directory: DataDirectory) -> bool:
    """Whether some process holds the writer's lock."""
    return is_held(directory, lease.WRITER_LOCK)


def is_supervised(directory: DataDirectory) -> bool:
    """Whether a foreground writer or a supervisor looks after this directory."""
    return is_held(directory, lease.SUPERVISED)


def how_to_stop(directory: DataDirectory) -> str:
    """For the end of a sentence that says to stop a process; empty where nobody would start it again at once."""
    return " (where `keyop up` runs it: `keyop stop`)" if is_supervised(directory) else ""


def writer_pid(directory: DataDirectory) -> int | None:
    """The pid that the writer noted, in its own pid namespace; None if none can be read."""
    return _noted_pid(directory, lease.WRITER_LOCK)


def supervisor_pid(directory: DataDirectory) -> int | None:
    """The same of the supervisor; None also where there is none."""
    return _noted_pid(directory, lease.SUPERVISED) if is_supervised(directory) else None


def _noted_pid(directory: DataDirectory, name: str) -> int | None:
    try:
        key, _, number = (directory.run / name).read_text().partition("\n")[0].partition(" ")
    except OSError:
        return None
    return int(number) if key == "pid" and number.isdigit() else None


def writer_state(directory: DataDirectory) -> WriterState | None:
    """What the writer's board says; None if no board of this directory is to be seen from here."""
    with _board(directory) as board:
        if board is None:
            return None
        words = board.words
        return WriterState(
            layout.STATE_NAMES.get(board.state, "unknown"),
            int(words[layout.SYNC_INTERVAL_MS]),
            int(words[layout.STALL_ERRNO]),
            board.counters(),
        )


def attached(directory: DataDirectory) -> list[AttachedProcess]:
    """All processes that have a port, by the name of the port."""
    return [describe(port, name, alive) for name, alive, port in ports(directory)]


def ports(directory: DataDirectory) -> Iterator[tuple[str, bool, Port | None]]:
    """All ports by name: whether the process lives, and the port, mapped until the next one is asked for; None if it
    cannot be seen."""
    identity = identity_of(directory)
    try:
        names = sorted(os.listdir(directory.run))
    except OSError:
        return
    for lease_name in names:
        if lease_name.startswith(lease.PORT_PREFIX):
            name = lease_name.removeprefix(lease.PORT_PREFIX)
            alive = is_held(directory, lease_name)
            port = open_port(identity, name)
            try:
                yield name, alive, port
            finally:
                if port is not None:
                    port.close()


def subscriptions(directory: DataDirectory) -> dict[tuple[str, str], LiveSubscription]:
    """The subscriptions of living processes, by channel and id; of one that several share some part."""
    return {key: held[0] for key, held in holders(directory).items()}


def holders(directory: DataDirectory) -> dict[tuple[str, str], list[LiveSubscription]]:
    """The subscriptions of living processes, by channel and id: one, or some of the parts that share its work."""
    found: dict[tuple[str, str], list[LiveSubscription]] = {}
    for process in attached(directory):
        if process.alive:
            for held in process.subscriptions:
                found.setdefault((held.channel, held.id), []).append(held)
    return found


def open_port(identity: DirectoryIdentity | None, name: str) -> Port | None:
    """Map a port, to look at it; None if it cannot be seen from here."""
    try:
        return Port.open(identity, name) if identity is not None else None
    except SharedMemoryError:
        return None  # another user's


def describe(port: Port | None, name: str, alive: bool) -> AttachedProcess:
    """What a port says of its process."""
    if port is None:
        return AttachedProcess(name, None, "unknown", alive)
    slots = list(slots_of(port))
    held = list(_subscriptions(port, slots))
    role = layout.ROLE_NAMES.get(port.role) or ("subscriber" if held else "publisher")
    return AttachedProcess(name, port.pid, role, alive, held, list(_peers(slots)))


def slots_of(port: Port) -> Iterator[Slot]:
    """The slots of a port in which something stands."""
    for index in range(port.slot_count()):
        try:
            slot = port.slot(index)
        except SharedMemoryError:
            return  # its page is being made
        if not slot.is_free and slot.sound:
            yield slot


def _peers(slots: list[Slot]) -> Iterator[LivePeer]:
    for slot in slots:
        stored = slot.peer() if slot.is_peer else {}
        if not stored.get("state"):
            continue
        name, address = slot.names()
        yield LivePeer(
            name=name.decode(errors="replace"),
            address=address.decode(errors="replace"),
            state=layout.PEER_STATE_NAMES.get(stored["state"] or 0, "unknown"),
            since_s=_scaled(stored["since_ms"]),
            round_trip_ms=_scaled(stored["round_trip_us"]),
            behind_bytes=stored["behind_bytes"] or 0,
            sent=stored["sent"] or 0,
            sent_per_min=stored["sent_per_min"] or 0,
            sent_ago_s=_scaled(stored["sent_ago_ms"]),
            waiting_bytes=stored["waiting_bytes"] or 0,
            received=stored["received"] or 0,
            received_per_min=stored["received_per_min"] or 0,
            received_ago_s=_scaled(stored["received_ago_ms"]),
        )


def _scaled(thousandths: int | None) -> float | None:
    return None if thousandths is None else thousandths / 1000


def _subscriptions(port: Port, slots: list[Slot]) -> Iterator[LiveSubscription]:
    for slot in slots:
        if not slot.granted:
            continue
        channel, id, part, parts = slot.place()
        cursor = slot.cursor()
        decides = cursor is not None and not slot.flags & entry.EXACTLY_ONCE
        counters = slot.counters()
        yield LiveSubscription(
            channel.decode(errors="replace"),
            id.decode(errors="replace"),
            port.pid,
            cursor.offset if cursor is not None and decides else None,
            cursor.attempts if cursor is not None and decides else None,
            counters["handled"],
            counters["failed"],
            counters["dead_lettered"],
            part + 1,
            parts,
        )


@contextmanager
def _board(directory: DataDirectory) -> Iterator[Board | None]:
    identity = identity_of(directory)
    try:
        board = Board.open(identity) if identity is not None else None
    except SharedMemoryError:
        board = None  # another user's
    try:
        yield board
    finally:
        if board is not None:
            board.close()


def identity_of(directory: DataDirectory) -> DirectoryIdentity | None:
    """None where no keyop process has been yet: making an identity would write into the directory."""
    try:
        return DirectoryIdentity(directory.run) if (directory.run / "id").exists() else None
    except OSError:
        return None


def is_held(directory: DataDirectory, name: str) -> bool:
    """Whether a living process holds this file in ``run/``."""
    try:
        return lease.is_held(directory.run / name)
    except PermissionError:
        return True  # another user's, and it is there: only the living are left there for long
    except OSError:
        return False
