"""One data directory on a disk that fails on command, with its writer and its crew, for one scenario."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from keyop.errors import KeyopError
from keyop.inspection import survey
from keyop.inspection.survey import StatusReport
from keyop.protocol.writer_options import WriterOptions
from keyop.storage.directory import DataDirectory
from keyop.writer.process import EXIT_CANNOT_START, EXIT_UNDRAINED
from torturing.crew import DEADLINE_S, Crew, OverdueError, drain
from torturing.faults import flawed_writer
from torturing.faults.mount import FaultyDisk
from torturing.faults.rules import Rule
from torturing.findings import Violation
from torturing.invariants import check
from torturing.ledger import Ledger, Note
from torturing.nursery import Nursery
from torturing.workload import Plan
from torturing.writer_process import WriterProcess

_LOOK_S = 0.003
_LEFT = tuple(f"the writer ended (exit code {code})" for code in (EXIT_CANNOT_START, EXIT_UNDRAINED))
_SCRIPTS = Path(__file__).resolve().parents[2]


class _Notes(Ledger):
    """Without complaints about writers that had to leave because of the disk: attached processes start some as well."""

    def notes(self, at_mark: int | None = None) -> Iterator[Note]:
        """As `Ledger.notes`."""
        for note in super().notes(at_mark):
            if note["what"] != "complained" or not any(words in note["text"] for words in _LEFT):
                yield note


class Stage:
    """Everything that a scenario needs; gone when it is left. ``violations`` collects what was found."""

    def __init__(self, place: Path, plan: Plan, nursery: Nursery, seed: object, flaw: str = "") -> None:
        """``flaw``: of the writer, see `flawed_writer`."""
        self.place = place
        self.plan = plan
        self.nursery = nursery
        self.flaw = flaw
        self.told: list[str] = []
        self.violations: list[Violation] = []
        self.recovered_ms: list[float] = []
        self.cuts = 0
        self.disk = FaultyDisk(place)
        self.directory = self.disk.mount / "data"
        self.ledger = _Notes(place / "ledger")
        self.crew = Crew(self.directory, self.ledger, plan, nursery, seed=seed, mark=self.disk.mark)
        self.writer: WriterProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays, whatever has happened: no process, no shared memory, no mount."""
        try:
            self.disk.control.heal()
            if self.writer is not None:
                self.writer.__exit__()
            if (self.directory / "run").exists():
                self.crew.abandon()
        finally:
            self.disk.close()

    # ---- the play

    def start_writer(self, *, wait: bool = True, **more: Any) -> WriterProcess:
        """A writer in the foreground, so that nobody else starts one; its log is read here."""
        if self.flaw:
            paths = os.pathsep.join((str(_SCRIPTS), str(_SCRIPTS.parent)))
            more |= {"module": flawed_writer.__name__, "flaw": self.flaw, "environment": {"PYTHONPATH": paths}}
        options = WriterOptions.from_settings(self.plan.settings(str(self.directory)))
        arguments = dict(word.split("=", 1) for word in options.to_arguments())
        del arguments["data_dir"]
        self.writer = WriterProcess(self.directory, **{**arguments, **more})
        if wait:
            self.writer.wait_until_open(DEADLINE_S)
        return self.writer

    def kill_writer(self) -> None:
        """SIGKILL. An operation that takes long ends first, as on any disk."""
        assert self.writer is not None
        self.writer.kill()

    def start_crew(self, *, wait: bool = True) -> None:
        """Subscribers and publishers."""
        for name in ("plain", "chain", "end", *self.crew.publishers):
            self.crew.revive(name)
        if wait:
            self.crew.until_ready("plain", "chain", "end")
            self.crew.progress(3)

    def fail(self, *rules: Rule) -> None:
        """From here on these rules hold."""
        self.told += [str(rule) for rule in rules]
        self.disk.control.fail(*rules)

    def heal(self) -> None:
        """From here on all is well."""
        self.disk.control.heal()

    def hit(self, count: int = 1, within_s: float = DEADLINE_S) -> bool:
        """Wait until the rules were applied; it is a violation of the scenario itself if they never are."""
        if self.disk.control.wait_for_hits(count, within_s):
            return True
        self.say("unreached", f"no operation met the rules within {within_s:.0f} s")
        return False

    def heard(self, event: str, **fields: object) -> dict[str, Any]:
        """The writer's next record of this event with these fields. Raises `WriterSilent`."""
        assert self.writer is not None
        deadline = time.monotonic() + DEADLINE_S
        while True:
            record = self.writer.wait_for(event, max(0.1, deadline - time.monotonic()))
            if all(record.get(name) == value for name, value in fields.items()):
                return record

    def heard_so_far(self, event: str) -> bool:
        """Whether the writer has said that, as far as it was listened to."""
        assert self.writer is not None
        return any(record["event"] == event for record in self.writer.records)

    def status(self) -> StatusReport:
        """What ``keyop status`` says."""
        return survey.status(DataDirectory(self.directory))

    def until(self, condition: Callable[[], object], what: str, within_s: float = DEADLINE_S) -> None:
        """Wait. Raises `OverdueError`, and `CrewError` if somebody ends meanwhile."""
        deadline = time.monotonic() + within_s
        while not condition():
            self.crew.look_after()
            if time.monotonic() > deadline:
                self.crew.explain_hang()
                raise OverdueError(f"{what}: not within {within_s:.0f} s; the writer is {self._said_of_writer()}")
            self.nursery.wait_for_any(_LOOK_S)

    def _said_of_writer(self) -> str:
        try:
            report = self.status()
        except (OSError, KeyopError) as error:
            return f"unknown: {error}"
        return f"{report.state} {report.stalled or ''}".strip()

    # ---- what must hold

    def say(self, kind: str, text: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(kind, text))

    def expect(self, condition: object, kind: str, text: str) -> None:
        """Note a violation unless the condition holds."""
        if not condition:
            self.say(kind, text)

    def expect_alive(self) -> None:
        """The writer is the one that was started: a failing disk is waited for, not fled from."""
        assert self.writer is not None
        code = self.writer.process.poll()
        if code is not None:
            self.writer.end()
            self.say("crash", f"the writer ended with {code}: {self._last_words()}")

    def _last_words(self) -> str:
        assert self.writer is not None
        return " | ".join(str(record.get("line") or record) for record in self.writer.records[-12:])

    def check_cut(self, name: str) -> None:
        """What a power cut now would leave: recovered, handled to the end, and compared with what was acknowledged."""
        self.cuts += 1
        image = self.place / f"cut-{self.cuts}-{name}"
        mark = self.disk.control.cut(image)
        directory = image / self.directory.name
        ledger = _Notes(self.ledger.path, image.with_suffix(".ledger"))
        self.recovered_ms += drain(directory, ledger, self.plan, self.nursery, power_cut=True)
        self._found(f"a power cut {name}", check(directory, ledger, self.plan, after="power cut", at_mark=mark))

    def finish(self, *rules: Rule) -> None:
        """Stop in order; the rules hold when the writer stops. Nothing is missing then, here or on the device."""
        self.crew.retire()
        self.fail(*rules)
        assert self.writer is not None
        code = self.writer.stop(DEADLINE_S)
        self.expect(code == 0, "exit code", f"{code} after a clean stop: {self._last_words()}")
        self.heal()
        self._found("the end", check(self.directory, self.ledger, self.plan))
        image = self.place / "cut-at-rest"
        self.disk.control.cut(image)
        directory = image / self.directory.name
        self._found("a power cut at rest", check(directory, self.ledger, self.plan))
        # Where everybody stood is on the device as well: nothing is passed on twice.
        ledger = _Notes(self.ledger.path, image.with_suffix(".ledger"))
        drain(directory, ledger, self.plan, self.nursery, power_cut=True)
        self._found("the start behind it", check(directory, ledger, self.plan))

    def _found(self, when: str, violations: list[Violation]) -> None:
        self.violations += [Violation(found.kind, f"after {when}: {found.text}") for found in violations]
