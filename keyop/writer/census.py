"""Who is attached: ports are found by their lease files in ``run/``, and swept when the lease has fallen."""

from __future__ import annotations

import os
import time
from pathlib import Path

from keyop.errors import SharedMemoryError
from keyop.ipc import lease, port
from keyop.ipc.layout import DETACHED
from keyop.ipc.names import PREFIX, DirectoryIdentity
from keyop.ipc.port import Port
from keyop.writer.attached import AttachedPort
from keyop.writer.log import Log

# The kernel's time stamps are this coarse: a directory changed twice within it may look unchanged.
_STAMP_NS = 20_000_000
_SHM = Path("/dev/shm")


class Census:
    """The attached ports."""

    def __init__(self, run_dir: Path, identity: DirectoryIdentity, log: Log) -> None:
        self.ports: list[AttachedPort] = []
        self._run_dir = run_dir
        self._identity = identity
        self._log = log
        self._names: set[str] = set()
        self._seen_ns = 0
        self._scanned_ns = 0
        self._complained: set[str] = set()

    def look(self) -> list[AttachedPort]:
        """The ports that have come since the last look; costs one `stat` when nothing changed."""
        changed_ns = os.stat(self._run_dir).st_mtime_ns
        if changed_ns == self._seen_ns and changed_ns + _STAMP_NS < self._scanned_ns:
            return []
        self._seen_ns = changed_ns
        return self.scan()

    def scan(self) -> list[AttachedPort]:
        """Read the directory; adopt what is new and alive."""
        self._scanned_ns = time.time_ns()
        found = []
        for name in os.listdir(self._run_dir):
            if name.startswith(lease.PORT_PREFIX) and name not in self._names:
                adopted = self._adopt(name)
                if adopted is not None:
                    found.append(adopted)
        return found

    def _adopt(self, lease_name: str) -> AttachedPort | None:
        name = lease_name.removeprefix(lease.PORT_PREFIX)
        path = self._run_dir / lease_name
        try:
            opened = Port.open(self._identity, name)
        except SharedMemoryError as error:
            if name not in self._complained:
                self._log.error("port_refused", port=name, why=error)
                self._complained.add(name)
            return None
        if opened is None:
            # Its memory is gone: with its process, or (if that lives) until the process has made it anew.
            if not lease.is_held(path):
                path.unlink(missing_ok=True)
            return None
        attached = AttachedPort(name, opened, path)
        self.ports.append(attached)
        self._names.add(lease_name)
        return attached

    def find_dead(self) -> list[AttachedPort]:
        """The ports whose lease has fallen. They are drained before `sweep`."""
        for attached in self.ports:
            if not attached.dead and not lease.is_held(attached.lease_path):
                attached.dead = True
        return [attached for attached in self.ports if attached.dead]

    def detached(self) -> bool:
        """Whether some process has said that it is leaving."""
        return any(attached.words[DETACHED] for attached in self.ports)

    def sweep(self, attached: AttachedPort) -> None:
        """Remove a dead process's port and lease."""
        pages = attached.port.slot_count() // 64 - 1
        port.remove(self._identity, attached.name, pages)
        attached.lease_path.unlink(missing_ok=True)
        self.ports.remove(attached)
        self._names.discard(attached.lease_path.name)
        attached.port.close()

    def sweep_orphans(self) -> None:
        """At a start: remove what has no lease (Linux, where shared memory can be listed)."""
        for path in self._run_dir.glob(f"{lease.DRAFT_PREFIX}*"):
            if not lease.is_held(path):
                port.remove(self._identity, path.name.removeprefix(lease.DRAFT_PREFIX))
                path.unlink(missing_ok=True)
        if not _SHM.is_dir():
            return
        prefix = f"{PREFIX[1:]}{self._identity.key}-"
        names = {path.name.removeprefix("sem.") for path in _SHM.iterdir()}
        for name in names:
            if name.startswith(prefix) and len(name) >= len(prefix) + 8 and not self._leased(name[len(prefix) :][:8]):
                port.remove(self._identity, name[len(prefix) :][:8], pages=_pages(names, name[: len(prefix) + 8]))

    def _leased(self, name: str) -> bool:
        return any((self._run_dir / f"{kind}{name}").exists() for kind in (lease.PORT_PREFIX, lease.DRAFT_PREFIX))

    def close(self) -> None:
        """Unmap every port; the names stay for the next writer."""
        for attached in self.ports:
            attached.port.close()
        self.ports.clear()


def _pages(names: set[str], port_name: str) -> int:
    return max(
        (
            int(name[len(port_name) :])
            for name in names
            if name.startswith(port_name) and name[len(port_name) :].isdigit()
        ),
        default=0,
    )
