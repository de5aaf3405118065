"""The process table: what `keyop status` is told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from keyop.inspection.usage import usage
from keyop.processes.service import Service

SAMPLE_S = 5.0


class Table:
    """Of the supervisor and its services. `sample` is called now and then, to know how busy each is *now*."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._samples: dict[int, list[tuple[float, float]]] = {}

    def sample(self, services: Iterable[Service]) -> None:
        """Note how much processor time each has used; the last two notes are kept."""
        samples = {}
        for pid in (os.getpid(), *(service.child.pid for service in services if service.child is not None)):
            used = usage(pid)
            if used is not None:
                samples[pid] = [*self._samples.get(pid, [])[-1:], (time.monotonic(), used.cpu_s)]
        self._samples = samples

    def rows(self, services: Iterable[Service], state: str) -> list[dict[str, Any]]:
        """One for each process that there is or should be."""
        rows = [self._row("supervisor", os.getpid(), state, self._started_s, 0, "")]
        for service in services:
            child = service.child
            pid, started_s = (None, None) if child is None else (child.pid, child.started_s)
            rows.append(self._row(service.name, pid, service.state, started_s, service.restarts, service.last_reason))
        return rows

    def _row(
        self, role: str, pid: int | None, state: str, started_s: float | None, restarts: int, reason: str
    ) -> dict[str, Any]:
        now_s = time.monotonic()
        used = usage(pid) if pid is not None else None
        return {
            "role": role,
            "pid": pid,
            "state": state,
            "uptime_s": None if started_s is None else round(now_s - started_s, 1),
            "restarts": restarts,
            "rss_bytes": None if used is None else used.rss_bytes,
            "cpu_s": None if used is None else round(used.cpu_s, 2),
            "cpu_percent": None if used is None or pid is None else self._percent(pid, now_s, used.cpu_s, started_s),
            "reason": reason,
        }

    def _percent(self, pid: int, now_s: float, cpu_s: float, started_s: float | None) -> float | None:
        """Of one core, over the last 5 to 10 seconds, or since its start if that is not so long ago."""
        since_s, before_s = self._samples.get(pid, [(started_s or now_s, 0.0)])[0]
        return round((cpu_s - before_s) / (now_s - since_s) * 100, 1) if now_s > since_s else None
