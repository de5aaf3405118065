"""One image after a power cut: the file system recovers, keyop starts, all is handled, and then it is checked."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torturing import nursery
from torturing.crew import Crew, CrewError, OverdueError, last_lines
from torturing.findings import Violation
from torturing.invariants import check
from torturing.ledger import Ledger, Note
from torturing.nursery import Nursery, NurseryError
from torturing.powercut.kernel_log import KernelLog
from torturing.powercut.mount import FileSystem, mounted
from torturing.powercut.stage import DATA
from torturing.workload import Plan


@dataclass(slots=True)
class Finding:
    """What came of one image."""

    violations: list[Violation] = field(default_factory=list)
    recovered_ms: list[float] = field(default_factory=list)
    acknowledged: int = 0
    damage: str = ""
    """What the kernel said where the file system itself is damaged or cannot be mounted: then keyop is not judged."""


class KnownNotes(Ledger):
    """A ledger whose first part was parsed once, for many images; what comes now goes to a file for each."""

    def __init__(self, known: Sequence[Note], path: Path) -> None:
        super().__init__(path)
        self._known = known

    def notes(self, at_mark: int | None = None) -> Iterator[Note]:
        """As `Ledger.notes`."""
        yield from (note for note in self._known if at_mark is None or note["mark"] <= at_mark)
        yield from super().notes()


class ForkedNursery(Nursery):
    """A nursery that is forked from this process, which has imported everything: an image costs no start of Python."""

    def __init__(self, log: Path) -> None:
        self.log = log
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if not child:
            errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for number in (1, 2):
                os.dup2(errors, number)
            ours.close()
            try:
                nursery._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._process = _Forked(child)  # type: ignore[assignment]
        self._socket = ours
        self._ended = {}


class _Forked:
    """As much of `subprocess.Popen` as a nursery needs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while True:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("nursery", timeout)
            time.sleep(0.002)

    def kill(self) -> None:
        os.kill(self._pid, 9)


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the time before the cut."""

    notes: Sequence[Note]
    plan: Plan
    mark: int
    """How long the disk's log was."""
    synced_before_ns: int
    """In periodic mode, what was acknowledged before this moment has to be there."""


def check_image(kind: FileSystem, image: Path, before: Before, *, drained: bool = True) -> Finding:
    """Start keyop on an image and check it. Runs in a room: there nothing is left of the machine before the cut.

    Not ``drained``: it only recovers, and no subscriber comes.
    """
    finding = Finding(acknowledged=_acknowledged(before))
    place = image.with_name("fs")
    kernel = KernelLog()
    try:
        with mounted(kind, image, place) as device:
            _check_directory(finding, place / DATA, image, before, drained)
            damage = kernel.damage(device)
    except OSError as error:
        finding.damage = str(error)
    else:
        finding.damage = damage[0] if damage else ""
    finally:
        kernel.close()
    if finding.damage:
        finding.violations.clear()
    return finding


def _check_directory(finding: Finding, directory: Path, image: Path, before: Before, drained: bool) -> None:
    ledger = KnownNotes(before.notes, image.with_name("ledger"))
    log = image.with_name("log")
    try:
        with ForkedNursery(log) as processes:
            finding.recovered_ms += _start(directory, ledger, before.plan, processes, drained)
    except OverdueError as error:
        finding.violations.append(Violation("hang", f"{error}: {last_lines(log, 60)}"))
        return
    except (CrewError, NurseryError) as error:
        finding.violations.append(Violation("crash", str(error)))
        return
    finding.violations += check(
        directory,
        ledger,
        before.plan,
        after="power cut",
        at_mark=before.mark,
        synced_before_ns=before.synced_before_ns,
        drained=drained,
    )


def _start(directory: Path, ledger: Ledger, plan: Plan, nursery: Nursery, drained: bool) -> list[float]:
    """How long the recovery took. Somebody comes once the writer is open, so that nobody starts a second one."""
    with Crew(directory, ledger, plan, nursery) as crew:
        crew.start_writer()
        crew.until_open()
        if drained:
            crew._begin("drainer", "drainer")
            crew.finished("drainer")
        crew._end_writer()
    return crew.recovered_ms


def _acknowledged(before: Before) -> int:
    return sum(
        len(note["ns"]) if note["what"] == "published" else len(note["parts"])
        for note in before.notes
        if note["what"] in ("published", "atomic") and note["mark"] <= before.mark
    )
