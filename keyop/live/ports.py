"""The ports of all attached processes, kept mapped over many looks: to open one costs more than to read it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from keyop.inspection import presence
from keyop.inspection.presence import AttachedProcess
from keyop.ipc import lease
from keyop.ipc.port import Port
from keyop.storage.directory import DataDirectory

# A process makes its port anew where somebody has removed the names: the old one says nothing from then on.
_REOPEN_S = 20.0


class PortWatch:
    """Who is attached."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._ports: dict[str, tuple[Port, float]] = {}

    def look(self) -> list[AttachedProcess]:
        """The living processes, by the names of their ports."""
        try:
            leases = sorted(name for name in os.listdir(self._directory.run) if name.startswith(lease.PORT_PREFIX))
        except OSError:
            leases = []
        living = [name for name in leases if presence.is_held(self._directory, name)]
        names = [name.removeprefix(lease.PORT_PREFIX) for name in living]
        for name in self._ports.keys() - set(names):
            self._forget(name)
        return [presence.describe(self._port(name), name, True) for name in names]

    @property
    def mapped(self) -> Mapping[str, Port]:
        """Those that can be seen, by name."""
        return {name: port for name, (port, _) in self._ports.items()}

    def close(self) -> None:
        """Unmap them all."""
        for name in list(self._ports):
            self._forget(name)

    def _port(self, name: str) -> Port | None:
        now_s = time.monotonic()
        kept = self._ports.get(name)
        if kept is not None and now_s < kept[1]:
            return kept[0]
        self._forget(name)
        port = presence.open_port(presence.identity_of(self._directory), name)
        if port is not None:
            self._ports[name] = port, now_s + _REOPEN_S
        return port

    def _forget(self, name: str) -> None:
        kept = self._ports.pop(name, None)
        if kept is not None:
            kept[0].close()
