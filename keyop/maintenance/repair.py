"""Repairing what `keyop.inspection.verification` finds, where that loses nothing. Only at rest: no writer runs.

First the journal is replayed, as every writer does it at its start. Then torn ends are cut, what is in the way is moved
aside, and offsets that no record begins at are brought to where their subscribers would go on. Of all that is
changed there is a copy below ``repair/``; what cannot be brought back (a gap, a damaged record) is left as it is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from keyop.configuration.settings import Settings
from keyop.errors import WriterBusy
from keyop.inspection import at_rest, presence
from keyop.inspection.verification import Finding, Progress, Verification, verify
from keyop.ipc import lease
from keyop.ownership import make_given_directory
from keyop.protocol import entry
from keyop.storage import disk
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import JournalContents
from keyop.storage.offset_file import write_offset
from keyop.storage.offsets import read_offset
from keyop.storage.parts import PARTS_SUFFIX, read_parts
from keyop.storage.segments import align_offset, list_segments
from keyop.storage.torn import cut_torn_end

_BY_RECOVERY = frozenset(("journal", "spill", "deleted"))


class Step(NamedTuple):
    """Something that is to be done, or has been."""

    action: str
    """``recover``, ``cut``, ``move`` or ``offset``."""
    path: str
    text: str


class Repair(NamedTuple):
    """What was done, and what is left."""

    done: list[Step]
    copies: str | None
    """Where the copies are; None if nothing was changed."""
    after: Verification


def plan(found: Verification) -> list[Step]:
    """What can be repaired of what was found."""
    steps = []
    recovered = [finding for finding in found.findings if finding.kind in _BY_RECOVERY]
    if recovered:
        why = "; ".join(sorted({finding.kind for finding in recovered}))
        steps.append(Step("recover", found.data_dir, f"replay the journal ({why})"))
    return steps + [step for finding in found.problems for step in _steps(finding)]


def _is_end(path: Path) -> bool:
    """Whether a segment is the last one of its channel, but for empty ones."""
    return all(not each.path.stat().st_size for each in list_segments(path.parent)[0] if each.path > path)


def _steps(finding: Finding) -> Iterator[Step]:
    path = Path(finding.path)
    if finding.kind == "torn" and _is_end(path):
        yield Step("cut", finding.path, "cut the torn rest of the last line, which nobody reads")
    elif finding.kind == "foreign":
        yield Step("move", finding.path, "move it below repair/: it is no part of the channel")
    elif finding.kind == "parts" and finding.offset is None:
        yield Step("move", finding.path, "move it below repair/: it counts as absent")
    elif finding.kind == "offset" and finding.offset is not None:
        yield Step("offset", finding.path, f"bring the offset of {path.stem} to where it goes on")


def repair(settings: Settings, found: Verification, steps: list[Step], progress: Progress | None = None) -> Repair:
    """Do what was planned. May be killed, and done again.

    Raises `WriterBusy` while a writer runs, `WriterUnavailable` where the journal cannot be replayed, `OSError`.
    """
    directory = DataDirectory(settings.storage.data_dir)
    refuse_running(directory)
    copies = _Copies(directory)
    done: list[Step] = []
    if any(step.action == "recover" for step in steps):
        copies.take(_recovered_files(directory))
        rest = at_rest.recover(settings)
        done += [Step("recover", found.data_dir, note) for note in rest.notes or ["replayed the journal"]]
    held = lease.acquire(directory.run / lease.WRITER_LOCK)
    if held is None:
        raise WriterBusy(f"{directory.path}: a writer was started meanwhile; stop what is attached, and repair again")
    try:
        for step in steps:
            done += _do(directory, step, copies)
    finally:
        held.release()
    return Repair(done, str(copies.path) if copies.made else None, verify(directory.path, progress))


def refuse_running(directory: DataDirectory) -> None:
    """Raise `WriterBusy` if there is a writer, or a supervisor that starts one."""
    if presence.writer_lives(directory) or presence.is_supervised(directory):
        raise WriterBusy(
            f"{directory.path}: a writer runs here (pid {presence.writer_pid(directory)}); files are repaired at rest: "
            f"stop what is attached, and the writer with it{presence.how_to_stop(directory)}"
        )


def _do(directory: DataDirectory, step: Step, copies: _Copies) -> Iterator[Step]:
    path = Path(step.path)
    if step.action == "move" and os.path.lexists(path):
        yield step._replace(text=f"moved to {copies.move(path)}")
    elif step.action == "cut" and _is_end(path):
        copies.take([path])
        for cut in cut_torn_end(list_segments(path.parent)[0]):
            disk.sync_path(cut.path)
            yield step._replace(text=f"{cut.torn_bytes} bytes at {cut.length} were cut")
    elif step.action == "offset":
        before = read_offset(path)
        if before is None or before.damaged:
            return
        aligned, why = align_offset(directory.channel(path.parent.name), before.value)
        if why is None:
            return  # the recovery has done it
        parts = path.with_suffix(PARTS_SUFFIX)
        copies.take([path, parts] if read_parts(parts) is not None else [path])
        write_offset(path, aligned)
        if os.geteuid() == 0:
            status = path.parent.stat()
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        disk.sync_path(path)
        disk.sync_path(path.parent)
        yield step._replace(text=f"brought from {before.value} to {aligned}: it was {why}")


def _recovered_files(directory: DataDirectory) -> Iterator[Path]:
    """What a recovery may write to: the journal, and of each channel that it names the segments and offsets."""
    channels: dict[str, int] = {}
    for name in NAMES:
        path = directory.journal / name
        if not path.exists():
            continue
        yield path
        for frame in JournalContents(path).frames:
            for item in frame.entries():
                if item.channel:
                    least = item.value if item.kind in (entry.APPEND, entry.SPILLED) else 1 << 63
                    channel = os.fsdecode(item.channel)
                    channels[channel] = min(channels.get(channel, least), least)
    for channel, offset in channels.items():
        segments, _ = list_segments(directory.channel(channel))
        for number, segment in enumerate(segments):
            if number == len(segments) - 1 or segments[number + 1].start > offset:
                yield segment.path
        offsets = directory.offsets(channel)
        yield from sorted(offsets.iterdir()) if offsets.is_dir() else ()


class _Copies:
    """A directory of this repair's own, made when it is needed; in it paths are as in the data directory."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._parent = directory.path / "repair"
        self.path = self._parent / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.made = False

    def take(self, paths: Iterable[Path]) -> None:
        """Copy files, synced, before they are changed."""
        self._put(paths, lambda source, target: str(shutil.copy2(source, target)))

    def move(self, path: Path) -> Path:
        """Move something away; where it is now."""
        self._put([path], lambda source, target: str(shutil.move(source, target)))
        disk.sync_path(path.parent)
        return self._target(path)

    def _target(self, path: Path) -> Path:
        return self.path / path.relative_to(self._directory.path)

    def _put(self, paths: Iterable[Path], bring: Callable[[Path, Path], str]) -> None:
        made = set()
        for path in paths:
            target = self._target(path)
            if os.path.lexists(target):
                continue
            for parent in reversed([*target.parents][: len(target.parents) - len(self._directory.path.parents) - 1]):
                make_given_directory(parent)
            self.made = True
            bring(path, target)
            if os.geteuid() == 0:
                status = self._directory.path.stat()
                os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
            if target.is_file() and not target.is_symlink():
                disk.sync_path(target)
            made.add(target.parent)
        for parent in made:
            disk.sync_path(parent)
