"""The rows of processes."""

from __future__ import annotations

from collections.abc import Sequence

from keyop.inspection.presence import AttachedProcess
from keyop.inspection.usage import usage
from keyop.live.rates import Rates
from keyop.live.snapshot import ProcessView, WriterView


class ProcessRows:
    """Makes them, and keeps when each process began: the system tells it anew, and a little differently, each time."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._started: dict[int, float] = {}

    def rows(
        self, writer: WriterView, supervisor_pid: int | None, attached: Sequence[AttachedProcess]
    ) -> tuple[ProcessView, ...]:
        """Supervisor and writer first, then by role and pid. A process with several messengers is one row."""
        work: dict[tuple[str, int], list[str]] = {}
        unseen = [process for process in attached if process.pid is None]
        for process in attached:
            if process.pid is not None:
                work.setdefault((process.role, process.pid), []).extend(_work(process))
        rows = [self._row(role, pid, ", ".join(texts)) for (role, pid), texts in sorted(work.items())]
        if writer.pid is not None:
            mode = f"{writer.state}, {writer.mode}" if writer.mode else writer.state
            rows.insert(0, self._row("writer", writer.pid, mode))
        if supervisor_pid is not None and supervisor_pid != writer.pid:
            rows.insert(0, self._row("supervisor", supervisor_pid, "keyop up"))
        rows += [ProcessView(process.role, None, f"port {process.port}", None, None, None) for process in unseen]
        for gone in self._started.keys() - {row.pid for row in rows}:
            del self._started[gone]
        return tuple(rows)

    def _row(self, role: str, pid: int, work: str) -> ProcessView:
        taken = usage(pid)
        if taken is None:
            return ProcessView(role, pid, work, None, None, None)
        started = self._started.get(pid)
        if started is None or abs(started - taken.started_unix_s) > 2:
            started = self._started[pid] = round(taken.started_unix_s, 1)
        cpu_percent = round(100 * self._rates.per_s(("cpu", pid, started), taken.cpu_s), 1)
        return ProcessView(role, pid, work, taken.rss_bytes, cpu_percent, started)


def _work(process: AttachedProcess) -> list[str]:
    if process.role in ("hub", "client"):
        return [f"{len(process.peers)} peer{'' if len(process.peers) == 1 else 's'}"]
    return [f"{held.channel}/{held.id}" for held in process.subscriptions]
