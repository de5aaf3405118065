"""One image after a power cut: the file system recovers, keyop starts, all is handled, and then it is checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from torturing.crew import Crew, CrewError, OverdueError, last_lines
from torturing.findings import Violation
from torturing.invariants import check
from torturing.ledger import Ledger, Note
from torturing.nursery import NurseryError
from torturing.powercut.forked_nursery import ForkedNursery
from torturing.powercut.kernel_log import KernelLog
from torturing.powercut.mount import FileSystem, mounted
from torturing.powercut.stage import DATA
from torturing.records import read_channels
from torturing.workload import Plan

# How much longer than its interval a periodic sync may be late on a machine that is busy with other things, or while a
# killed writer has no successor yet: beyond that, what was acknowledged has to be there.
_LATE_NS = 3_000_000_000
# Of so many images one is asked for the age of what it has lost.
_AGED = 4


@dataclass(slots=True)
class Finding:
    """What came of one image."""

    violations: list[Violation] = field(default_factory=list)
    recovered_ms: list[float] = field(default_factory=list)
    acknowledged: int = 0
    oldest_loss_ms: float = 0.0
    """In periodic mode, how long before the cut the oldest message had been acknowledged that is not there."""
    damage: str = ""
    """What the kernel said where the file system itself is damaged or cannot be mounted: then keyop is not judged."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the time before the cut."""

    notes: Sequence[Note]
    plan: Plan
    mark: int
    """How long the disk's log was."""
    cut_ns: int
    """When the power was cut, by the monotonic clock."""
    drained: bool = True
    """Whether subscribers come afterwards and handle everything, or keyop is only started."""

    def told(self) -> Iterator[Note]:
        """The acknowledgements."""
        yield from (
            note for note in self.notes if note["what"] in ("published", "atomic") and note["mark"] <= self.mark
        )


class KnownNotes(Ledger):
    """A ledger whose first part was parsed once, for many images; what comes now goes to a file for each."""

    def __init__(self, known: Sequence[Note], path: Path) -> None:
        super().__init__(path)
        self._known = known

    def notes(self, at_mark: int | None = None) -> Iterator[Note]:
        """As `Ledger.notes`."""
        yield from (note for note in self._known if at_mark is None or note["mark"] <= at_mark)
        yield from super().notes()


def check_image(kind: FileSystem, image: Path, before: Before) -> Finding:
    """Start keyop on an image and check it. Runs in a room: there nothing is left of the machine before the cut."""
    finding = Finding(acknowledged=sum(len(_numbers(note)) for note in before.told()))
    place = image.with_name("fs")
    with KernelLog() as kernel, ExitStack() as mounts:
        try:
            device = mounts.enter_context(mounted(kind, image, place))
        except OSError as error:
            finding.damage = str(error)
            return finding
        _check_directory(finding, place / DATA, image, before)
        mounts.close()
        for said in kernel.damage(device):
            finding.damage = said
            finding.violations.clear()
    return finding


def _check_directory(finding: Finding, directory: Path, image: Path, before: Before) -> None:
    ledger = KnownNotes(before.notes, image.with_name("ledger"))
    log = image.with_name("log")
    try:
        with ForkedNursery(log) as processes, Crew(directory, ledger, before.plan, processes) as crew:
            crew.start_writer()
            # Before anybody comes, who would start a second one.
            crew.until_open()
            if before.drained:
                crew._begin("drainer", "drainer")
                crew.finished("drainer")
            crew._end_writer()
        finding.recovered_ms += crew.recovered_ms
        finding.violations += check(
            directory,
            ledger,
            before.plan,
            after="power cut",
            at_mark=before.mark,
            synced_before_ns=before.cut_ns - before.plan.sync_interval_ms * 1_000_000 - _LATE_NS,
            drained=before.drained,
        )
        if not (before.plan.strict or before.plan.compaction or before.mark % _AGED):
            finding.oldest_loss_ms = _oldest_loss_ms(directory, before)
    except OverdueError as error:
        finding.violations.append(Violation("hang", f"{error}: {last_lines(log, 60)}"))
    except (CrewError, NurseryError, OSError) as error:
        finding.violations.append(Violation("crash", f"{type(error).__name__}: {error}"))


def _oldest_loss_ms(directory: Path, before: Before) -> float:
    there = {
        (said.get("from"), said.get("life"), said.get("n"))
        for contents in read_channels(directory).values()
        for said in (record.payload for record in contents.records)
    }
    lost_ns = [
        before.cut_ns - note["t"]
        for note in before.told()
        if any((note["who"], note["life"], number) not in there for number in _numbers(note))
    ]
    return max(lost_ns, default=0) / 1e6


def _numbers(note: Note) -> list[int]:
    return note["ns"] if note["what"] == "published" else [number for _channel, number in note["parts"]]
