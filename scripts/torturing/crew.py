"""Publishers, subscribers, an exactly-once chain and the writer, as processes on any data directory."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Self

from keyop.inspection import presence
from keyop.ipc import lease
from keyop.storage.directory import DataDirectory
from torturing.ledger import Ledger
from torturing.member import CrewError, Member, OverdueError, last_lines, send
from torturing.nursery import Nursery
from torturing.shared_memory import shared_memory, sweep_shared_memory
from torturing.workload import SHARERS, Assignment, Plan

__all__ = ["Crew", "CrewError", "OverdueError", "drain", "last_lines", "shared_memory", "sweep_shared_memory"]

DEADLINE_S = 30.0
_LOOK_S = 0.003
_APART_S = 0.2
_SUBSCRIBERS = ("plain", "chain", "end")


class Crew:
    """All of them on one directory. What they were told is in the ledger."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        plan: Plan,
        nursery: Nursery,
        *,
        seed: object = 0,
        mark: Path | None = None,
    ) -> None:
        """``mark`` is the file in which whoever serves the disk says how long its log is."""
        self.directory = directory
        self.ledger = ledger
        self.plan = plan
        self.nursery = nursery
        self.members: dict[str, Member] = {}
        self.acknowledged: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self.replayed = 0
        self.recovered_ms: list[float] = []
        self._seed = str(seed)
        self._mark = str(mark) if mark is not None else None
        self._lives: Counter[str] = Counter()
        self._parts = plan.parts
        self._division = 0
        self._writer_status: int | None = None
        # pids of writers that said that they are open, and of those that belong to us.
        self._open_writers: set[int] = set()

    # ---- starting

    @property
    def publishers(self) -> list[str]:
        """Their names."""
        return [f"p{number}" for number in range(1, self.plan.publishers + 1)]

    @property
    def subscribers(self) -> tuple[str, ...]:
        """Those of them that subscribe."""
        return (*_SUBSCRIBERS, *(SHARERS if self.plan.parts else ()))

    def start(self, crash_at: str = "") -> None:
        """Writer and subscribers first, so that nothing is removed before everybody has an offset.

        ``crash_at``: the writer's, see `start_writer`.
        """
        self.start_writer(crash_at)
        for name in self.subscribers:
            self.revive(name)
        self.until_ready(*self.subscribers)
        for name in self.publishers:
            self.revive(name)

    def start_writer(self, crash_at: str = "") -> None:
        """A writer, which kills itself at a step: ``frame.written:3``. It may find that somebody else was quicker.

        The one that was started before has ended, or was killed.
        """
        assert "writer" not in self.members
        self._writer_status = None
        self._begin("writer", "writer", crash_at)

    def revive(self, name: str) -> None:
        """Start a publisher or subscriber, in its next life."""
        self._begin(name, name if name in _SUBSCRIBERS else "part" if name in SHARERS else "publisher")

    def _begin(self, name: str, role: str, crash_at: str = "") -> Member:
        life = self._lives[name]
        self._lives[name] += 1
        assignment = Assignment(
            role=role,
            who=name,
            life=life,
            seed=self._seed,
            data_dir=str(self.directory),
            ledger=str(self.ledger.path),
            mark=self._mark,
            plan=self.plan,
            crash_at=crash_at,
            parts=self._parts,
            division=self._division,
        )
        member = Member(name, role, life, self.nursery.fork(asdict(assignment)))
        self.members[name] = member
        return member

    def until_ready(self, *names: str) -> None:
        """Wait until these are attached and subscribed."""
        self._until(lambda: all(self.members[name].ready for name in names), f"{', '.join(names)} ready")

    def until_open(self) -> None:
        """Wait until the writer that was started is open or has ended."""
        pid = self.members["writer"].pid
        self._until(lambda: pid in self._open_writers or "writer" not in self.members, "the writer open or ended")

    # ---- while they run

    def progress(self, count: int = 1) -> None:
        """Wait until every living publisher has so many more acknowledged."""
        self._read()
        names = [name for name in self.publishers if name in self.members]
        goal = {name: self.acknowledged[name] + count for name in names}
        self._until(lambda: all(self.acknowledged[name] >= goal[name] for name in names), f"{count} more acknowledged")

    def ended(self, name: str) -> int | None:
        """The exit status of a member that has ended."""
        return self.nursery.ended(self.members[name].pid)

    def finished(self, *names: str) -> None:
        """Wait until these have ended by themselves, without a fault."""
        for name in names:
            self._until(lambda name=name: self._has_ended(name), f"{name} ended")  # type: ignore[misc]

    def _has_ended(self, name: str) -> bool:
        if name in self.members and self.ended(name) is not None:
            self._dismiss(name)
        return name not in self.members

    def writer_ended(self, seconds: float, *, while_starting: bool = False) -> int | None:
        """Wait until the writer that was started ends; its exit status, None if it lives on.

        ``while_starting``: not when it is open.
        """
        deadline_s = time.monotonic() + seconds
        while "writer" in self.members and time.monotonic() < deadline_s:
            self._read()
            self.look_after()
            if while_starting and "writer" in self.members and self.members["writer"].pid in self._open_writers:
                break
            self.nursery.wait_for_any(_LOOK_S)
        return self._writer_status

    def checkpoint(self) -> str:
        """Start what ``keyop checkpoint`` does, in a process of its own; its name."""
        return self._begin("checkpoint", "checkpoint").name

    def replay(self) -> str:
        """Start what ``keyop dead-letter replay`` does, in a process of its own; its name."""
        return self._begin("replay", "replay").name

    # ---- killing

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it has ended."""
        member = self.members.pop(name)
        send(member.pid, signal.SIGKILL)
        self.nursery.wait(member.pid, time.monotonic() + DEADLINE_S)
        self._let_go(member.pid)

    def divide(self, chance: random.Random) -> None:
        """SIGKILL the processes that share an id, one a moment after the other; the next ones divide it anew."""
        first, second = chance.sample(SHARERS, 2)
        self.kill(first)
        time.sleep(chance.uniform(0.0, _APART_S))  # the other one gets ahead
        self.kill(second)
        self._parts = chance.choice([parts for parts in (1, 2, 3) if parts != self._parts])
        self._division += 1
        for name in SHARERS:
            self.revive(name)

    def writer_pid(self) -> int | None:
        """The pid of the writer that holds the lock, ours or one that an attached process has started."""
        return presence.writer_pid(DataDirectory(self.directory)) if self._writer_lives() else None

    def _writer_lives(self) -> bool:
        return lease.is_held(self.directory / "run" / lease.WRITER_LOCK)

    def dismiss_writer(self) -> None:
        """SIGTERM to whatever writer there is; it is not waited for."""
        pid = self.writer_pid()
        if pid is not None:
            send(pid, signal.SIGTERM)

    def _writer_comes(self) -> bool:
        """Whether a writer lives, or is being started."""
        return lease.is_held(self.directory / "run" / lease.SPAWN_LOCK) or self._writer_lives()

    def kill_writer(self) -> bool:
        """SIGKILL whatever writer there is, ours or not; whether there was one."""
        pid = self.writer_pid()
        if pid is not None:
            send(pid, signal.SIGKILL)
        ours = self.members.pop("writer", None)
        if ours is not None:
            send(ours.pid, signal.SIGKILL)
            self.nursery.wait(ours.pid, time.monotonic() + DEADLINE_S)
            self._let_go(ours.pid)
        self._until(lambda: self.writer_pid() != pid or pid is None, "the lock of a killed writer fallen")
        return pid is not None or ours is not None

    # ---- the end

    def stop(self) -> None:
        """Publishers first; the subscribers when all is handled; then the writer, which leaves all at rest."""
        self.retire()
        self._end_writer()

    def retire(self) -> None:
        """All but the writer."""
        self.finished("checkpoint", "replay")
        self.stop_publishing()
        self._end(["plain", "chain"], signal.SIGUSR1)
        self._end(["end", *SHARERS], signal.SIGUSR1)

    def stop_publishing(self) -> None:
        """Have the publishers leave, and the rings of killed ones drained; the others go on."""
        self._end(self.publishers, signal.SIGTERM)
        self._until(lambda: not self._dead_ports(), "the rings of dead processes drained")

    def _dead_ports(self) -> list[Path]:
        return [path for path in (self.directory / "run").glob(f"{lease.PORT_PREFIX}*") if not lease.is_held(path)]

    def _end(self, names: list[str], number: int) -> None:
        present = [name for name in names if name in self.members]
        self.until_ready(*present)  # before, a signal would end it at once
        for name in present:
            send(self.members[name].pid, number)
        self.finished(*present)

    def _end_writer(self) -> None:
        def left() -> bool:
            pid = self.writer_pid()
            if pid is not None:
                send(pid, signal.SIGTERM)
            return pid is None and not self._writer_comes()

        self._until(left, "the writer gone")
        self.finished("writer")

    def abandon(self) -> None:
        """SIGKILL everything, and take its shared memory away: what a power cut leaves is the disk."""
        for name in list(self.members):
            if name != "writer":
                self.kill(name)
        deadline_s = time.monotonic() + DEADLINE_S
        while self.kill_writer() or self._writer_comes():
            if time.monotonic() > deadline_s:
                raise OverdueError("writers come again and again, though nobody is attached")
            time.sleep(_LOOK_S)
        sweep_shared_memory(self.directory)

    def explain_hang(self) -> None:
        """Have every process write its stacks to the nursery's log."""
        for member in self.members.values():
            if self.nursery.ended(member.pid) is None:
                send(member.pid, signal.SIGUSR2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    # ---- waiting

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            self._read()
            if condition():
                return
            self.look_after()
            if time.monotonic() > deadline_s:
                self.explain_hang()
                raise OverdueError(f"{what}: not within {DEADLINE_S:.0f} s")
            self.nursery.wait_for_any(_LOOK_S)

    def _read(self) -> None:
        for note in self.ledger.news():
            what = note["what"]
            if what in ("published", "atomic"):
                self.acknowledged[note["who"]] += 1
            elif what == "handled":
                self.handled[note["by"]] += 1
            elif what == "replayed":
                self.replayed += 1
            elif what == "ready":
                member = self.members.get(note["who"])
                if member is not None and member.life == note["life"]:
                    member.ready = True
            elif what == "open":
                self._open_writers.add(note["pid"])
                self.recovered_ms.append(note["ms"])

    def look_after(self) -> None:
        """See that nobody has ended who should not have. Raises `CrewError`."""
        for name, member in list(self.members.items()):
            status = self.nursery.ended(member.pid)
            if status is not None and (status or member.role in ("writer", "checkpoint", "replay")):
                self._dismiss(name)

    def _dismiss(self, name: str) -> None:
        member = self.members.pop(name)
        status = self.nursery.ended(member.pid)
        if member.role == "writer":
            self._writer_status = status
        self._let_go(member.pid)
        allowed = (0, 69, -signal.SIGKILL) if member.role == "writer" else (0,)
        if status not in allowed:
            said = last_lines(self.nursery.log)
            raise CrewError(f"{name} (life {member.life}) ended with {status}: {said}")

    def _let_go(self, pid: int) -> None:
        self._open_writers.discard(pid)
        self.nursery.forget(pid)


def drain(
    directory: Path, ledger: Ledger, plan: Plan, nursery: Nursery, *, power_cut: bool = False, writer: bool = True
) -> list[float]:
    """Recover a directory, have everything handled, and leave it at rest; how many ms each recovery took.

    The notes go to the ledger's last file: give it one of its own for each image of a disk. With ``power_cut`` the
    shared memory goes first. Raises `CrewError` and `OverdueError`.
    """
    if power_cut:
        sweep_shared_memory(directory)
    crew = Crew(directory, ledger, plan, nursery)
    try:
        if writer:
            crew.start_writer()
        crew._begin("drainer", "drainer")
        crew.finished("drainer")
        crew._end_writer()
    except BaseException:
        crew.abandon()
        raise
    return crew.recovered_ms
