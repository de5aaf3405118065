"""Who is attached: ports are found by their lease files in ``run/``, and swept when the lease has fallen."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from keyop.errors import SharedMemoryError
from keyop.ipc import lease, port
from keyop.ipc.layout import DETACHED
from keyop.ipc.names import PREFIX, DirectoryIdentity
from keyop.ipc.port import Port
from keyop.storage import disk
from keyop.writer.attached import AttachedPort
from keyop.writer.log import Log

# The kernel's time stamps are this coarse: a directory changed twice within it may look unchanged.
_STAMP_NS = 20_000_000
_SHM = Path("/dev/shm")
_is_port = re.compile("[0-9a-f]{8}").fullmatch

Taken = tuple[int, list[tuple[int, int, int]]]


class Census:
    """The attached ports."""

    def __init__(self, run_dir: Path, identity: DirectoryIdentity, log: Log, taken: dict[int, Taken]) -> None:
        """``taken``: what a recovery found of each ring, by its id: how far the journal holds it, and the answers."""
        self.ports: list[AttachedPort] = []
        self._run_dir = run_dir
        self._identity = identity
        self._log = log
        self._names: set[str] = set()
        self._seen_ns = 0
        self._scanned_ns = 0
        self._taken = taken
        self._complained: set[str] = set()

    def look(self) -> list[AttachedPort]:
        """The ports that have come since the last look; costs one `stat` when nothing changed."""
        try:
            changed_ns = os.stat(self._run_dir).st_mtime_ns
        except OSError as error:
            return self._cannot_look(error)
        if changed_ns == self._seen_ns and changed_ns + _STAMP_NS < self._scanned_ns:
            return []
        self._seen_ns = changed_ns
        return self.revisit()

    def revisit(self) -> list[AttachedPort]:
        """As `scan`; where the disk fails or descriptors are short, who has come is found by a later look."""
        try:
            return self.scan()
        except OSError as error:
            return self._cannot_look(error)

    def _cannot_look(self, error: OSError) -> list[AttachedPort]:
        self._seen_ns = 0
        if error.errno not in disk.WAIT_ERRNOS:
            raise error
        if error.filename not in self._complained:
            self._log.warning("newcomers_not_seen", why=error)
            self._complained.add(error.filename)
        return []

    def scan(self) -> list[AttachedPort]:
        """Read the directory; adopt what is new and alive. Raises `OSError`."""
        self._scanned_ns = time.time_ns()
        found = []
        for name in self.leases():
            if name not in self._names:
                adopted = self._adopt(name)
                if adopted is not None:
                    found.append(adopted)
        return found

    def leases(self) -> list[str]:
        """The names of the leases that stand in the directory now. Any thread may ask. Raises `OSError`."""
        return [name for name in os.listdir(self._run_dir) if _is_lease(name)]

    def _adopt(self, lease_name: str) -> AttachedPort | None:
        name = lease_name.removeprefix(lease.PORT_PREFIX)
        path = self._run_dir / lease_name
        try:
            opened = Port.open(self._identity, name)
            if opened is None:
                # Its memory is gone: with its process, or (if that lives) until the process has made it anew.
                self._forget_fallen(name, path)
                return None
        except (SharedMemoryError, OSError) as error:
            if name not in self._complained:
                self._log.error("port_refused", port=name, why=error)
                self._complained.add(name)
            self._forget_fallen(name, path)
            return None
        attached = AttachedPort(name, opened, path)
        taken = self._taken.pop(opened.ring_id, None)
        if taken is not None:
            attached.take_over(*taken)
        self.ports.append(attached)
        self._names.add(lease_name)
        return attached

    def _forget_fallen(self, name: str, path: Path) -> None:
        """Remove what is left of a process that died with a port that cannot be used."""
        try:
            if lease.remove_fallen(path):
                port.remove(self._identity, name)
        except OSError as error:
            self._log.debug("port_not_removed", port=name, why=error)

    def find_dead(self) -> list[AttachedPort]:
        """The ports whose lease has fallen. They are drained before `sweep`."""
        for attached in self.ports:
            if not attached.is_alive():
                attached.dead = True
        return [attached for attached in self.ports if attached.dead]

    def detached(self) -> bool:
        """Whether some process has said that it is leaving."""
        return any(attached.words[DETACHED] for attached in self.ports)

    def sweep(self, attached: AttachedPort) -> None:
        """Remove a dead process's port and lease."""
        pages = attached.port.slot_count() // 64 - 1
        port.remove(self._identity, attached.name, pages)
        try:
            attached.lease_path.unlink(missing_ok=True)
        except OSError as error:
            # A failing disk: a later look finds a lease without a port, and removes it.
            self._log.debug("lease_not_removed", port=attached.name, why=error)
        self.ports.remove(attached)
        self._names.discard(attached.lease_path.name)
        attached.port.close()

    def sweep_orphans(self) -> None:
        """At a start: remove what has no lease (Linux, where shared memory can be listed)."""
        for path in self._run_dir.glob(f"{lease.DRAFT_PREFIX}*"):
            if lease.remove_fallen(path):
                port.remove(self._identity, path.name.removeprefix(lease.DRAFT_PREFIX))
        if not _SHM.is_dir():
            return
        prefix = f"{PREFIX[1:]}{self._identity.key}-"
        names = {path.name.removeprefix("sem.") for path in _SHM.iterdir()}
        for name in names:
            if name.startswith(prefix) and len(name) >= len(prefix) + 8 and not self._leased(name[len(prefix) :][:8]):
                port.remove(self._identity, name[len(prefix) :][:8], pages=_pages(names, name[: len(prefix) + 8]))

    def _leased(self, name: str) -> bool:
        # In this order: between the two looks a draft may get its final name.
        return any((self._run_dir / f"{kind}{name}").exists() for kind in (lease.DRAFT_PREFIX, lease.PORT_PREFIX))

    def close(self) -> None:
        """Unmap every port; the names stay for the next writer."""
        for attached in self.ports:
            attached.port.close()
        self.ports.clear()


def _is_lease(name: str) -> bool:
    return name.startswith(lease.PORT_PREFIX) and _is_port(name.removeprefix(lease.PORT_PREFIX)) is not None


def _pages(names: set[str], port_name: str) -> int:
    return max(
        (
            int(name[len(port_name) :])
            for name in names
            if name.startswith(port_name) and name[len(port_name) :].isdigit()
        ),
        default=0,
    )
