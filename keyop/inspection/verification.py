"""Checking a data directory: says what is wrong, changes nothing.

A **problem** is something that is not as it should be; a **note** is worth knowing and needs nobody. Beside a running
writer it looks at files that grow: an unfinished tail is no fault there, nor a journal in use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from keyop.errors import NameRuleError
from keyop.inspection import presence
from keyop.inspection.oddities import oddity
from keyop.messages.envelope import BadLine, Envelope, Fault, decode_line_raw
from keyop.names import PEER_PREFIXES, REPLAY_SUFFIX, check_channel, check_subscriber_id
from keyop.protocol import entry
from keyop.storage.deletion import is_deleted
from keyop.storage.directory import DataDirectory
from keyop.storage.journal import NAMES
from keyop.storage.journal_file import FIRST_FRAME_BYTES, JournalContents
from keyop.storage.offsets import OFFSET_SUFFIX, list_offsets
from keyop.storage.parts import PARTS_SUFFIX, places, read_parts
from keyop.storage.pattern_file import DRAFT_PREFIX, PATTERNS_DIRECTORY, PatternFileDamaged, read_seen
from keyop.storage.recovery import Recovered, whole_run
from keyop.storage.segments import MAX_LINE_BYTES, Segment, align_offset, list_segments

_READ_BYTES = 1 << 20
# Of the damaged lines of one segment; how many more there are is said as well.
_LINES_NAMED = 20

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and those that there are in all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    severity: Literal["problem", "note"]
    kind: str
    """A word for scripts: ``damaged``, ``gap``, ``offset``, ...; the docs list them."""
    path: str
    offset: int | None
    """Global offset in bytes, where there is one."""
    text: str
    """What is wrong and, where somebody has to do something, what."""

    def __str__(self) -> str:
        place = f" at {self.offset}" if self.offset is not None else ""
        return f"{self.severity}: {self.path}{place}: {self.text}"


@dataclass(slots=True)
class Verification:
    """What `verify` found, and how much it looked at."""

    data_dir: str
    writer_runs: bool
    channels: int = 0
    segments: int = 0
    records: int = 0
    bytes: int = 0
    offset_files: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        """What is not as it should be."""
        return [finding for finding in self.findings if finding.severity == "problem"]

    @property
    def notes(self) -> list[Finding]:
        """What is only worth knowing."""
        return [finding for finding in self.findings if finding.severity == "note"]


def verify(data_dir: str | os.PathLike[str], progress: Progress | None = None) -> Verification:
    """Check names, segments, offset files and the journal of a directory.

    Raises `DataDirectoryError` if it is no data directory, and `OSError` if its own directories cannot be listed.
    """
    directory = DataDirectory(data_dir)
    directory.require()
    return _Verifier(directory, progress).run()


class _Verifier:
    def __init__(self, directory: DataDirectory, progress: Progress | None) -> None:
        self._directory = directory
        self._progress = progress
        self._result = Verification(os.path.abspath(directory.path), presence.writer_lives(directory))
        self._bytes_in_all = 0

    def run(self) -> Verification:
        self._check_journal()
        channels = self._channel_directories()
        self._bytes_in_all = sum(_size(segment.path) for path in channels for segment in list_segments(path)[0])
        for path in channels:
            self._result.channels += 1
            self._check_channel(path)
        self._check_offsets()
        return self._result

    def _problem(self, kind: str, path: Path, text: str, offset: int | None = None) -> None:
        self._result.findings.append(Finding("problem", kind, str(path), offset, text))

    def _note(self, kind: str, path: Path, text: str, offset: int | None = None) -> None:
        self._result.findings.append(Finding("note", kind, str(path), offset, text))

    # ---- channels

    def _channel_directories(self) -> list[Path]:
        found = []
        for path in sorted(self._directory.channels.iterdir()):
            if is_deleted(path.name):
                if not self._result.writer_runs:
                    self._note("deleted", path, "is left of a deleted channel; the next writer removes it")
                continue
            if not path.is_dir():
                self._problem("foreign", path, "is no directory: no channel can have this name; move it away")
                continue
            try:
                check_channel(path.name)
            except NameRuleError as error:
                self._problem("name", path, f"{error}; nobody can publish or subscribe to it")
            found.append(path)
        return found

    def _check_channel(self, path: Path) -> None:
        try:
            segments, foreign = list_segments(path)
        except OSError as error:
            self._problem("unreadable", path, f"cannot be listed: {error.strerror}")
            return
        for name in foreign:
            self._problem("foreign", path / name, "is no segment and is ignored; move it away")
        strangers: Counter[str] = Counter()
        for segment in segments:
            try:
                self._check_segment(segment, path.name, strangers)
            except FileNotFoundError:
                continue  # removed by retention meanwhile
            except OSError as error:
                self._problem("unreadable", segment.path, f"cannot be read: {error.strerror}", segment.start)
        if strangers:
            names = ", ".join(f"{name!r} ({count})" for name, count in strangers.most_common(3))
            self._note("channel", path, f"{strangers.total()} envelopes name another channel: {names}")
        for segment, following in pairwise(segments):
            self._check_seam(segment, following)
        if segments:
            self._check_end(segments)

    def _check_seam(self, segment: Segment, following: Segment) -> None:
        end = segment.start + _size(segment.path)
        if end == following.start or self._may_grow(following.path) or not segment.path.exists():
            return
        if end < following.start:
            text = f"{following.start - end} bytes are missing before this segment; readers go on in it"
            self._problem("gap", following.path, text, end)
        else:
            text = f"begins {end - following.start} bytes before the segment before it ends"
            self._problem("overlap", following.path, text, following.start)

    def _check_end(self, segments: list[Segment]) -> None:
        for segment, following in pairwise(segments):
            if not self._may_grow(following.path):
                self._check_tail(segment, "its last line has no end; readers pass over it")
        if not self._result.writer_runs:
            text = "the torn rest of a last line; it is not delivered, the next writer (or `keyop recover`) cuts it"
            self._check_tail(segments[-1], text)

    def _check_tail(self, segment: Segment, text: str) -> None:
        torn_bytes = _tail_bytes(segment.path)
        if torn_bytes:
            at = segment.start + _size(segment.path) - torn_bytes
            self._problem("torn", segment.path, f"{torn_bytes} bytes: {text}", at)

    def _may_grow(self, following: Path) -> bool:
        """A writer makes the next segment before it fills this one: bytes in that prove this one full."""
        return self._result.writer_runs and not _size(following)

    # ---- lines

    def _check_segment(self, segment: Segment, channel: str, strangers: Counter[str]) -> None:
        self._result.segments += 1
        # What was put back still names the channel that it was published to.
        name = channel.removesuffix(REPLAY_SUFFIX).encode()
        bad = odd = 0
        for offset, line, length in self._lines(segment):
            self._result.records += 1
            found = decode_line_raw(line) if line is not None else None
            if isinstance(found, Envelope):
                if found.channel.encode() != name:
                    strangers[found.channel] += 1
                assert line is not None
                if odd < _LINES_NAMED and (text := oddity(line)):
                    odd += 1
                    self._note("odd", segment.path, f"{text}; it is delivered", offset)
            elif isinstance(found, BadLine) and found.fault is Fault.OTHER_VERSION:
                self._note("version", segment.path, f"{found.reason}; subscribers pass over it", offset)
            else:
                bad += 1
                if bad <= _LINES_NAMED:
                    self._problem(*_fault(segment.path, found, length), offset)
        if bad > _LINES_NAMED:
            self._problem("damaged", segment.path, f"{bad - _LINES_NAMED} more damaged lines")

    def _lines(self, segment: Segment) -> Iterator[tuple[int, bytes | None, int]]:
        """(offset, line or None if it is over the limit, its length with the newline) of each whole line."""
        begin = segment.start
        held: list[bytes] = []
        held_bytes = 0
        with segment.path.open("rb", buffering=0) as file:
            while data := file.read(_READ_BYTES):
                self._read(len(data))
                lines = data.split(b"\n")
                rest = lines.pop()
                for line in lines:
                    length = held_bytes + len(line) + 1
                    whole = b"".join((*held, line)) if held else line
                    yield begin, whole if length <= MAX_LINE_BYTES else None, length
                    begin += length
                    held, held_bytes = [], 0
                held_bytes += len(rest)
                if held_bytes < MAX_LINE_BYTES:
                    held.append(rest)

    def _read(self, length: int) -> None:
        self._result.bytes += length
        if self._progress is not None:
            self._progress(self._result.bytes, max(self._bytes_in_all, self._result.bytes))

    # ---- offsets

    def _check_offsets(self) -> None:
        try:
            paths = sorted(self._directory.subscribers.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            if not path.is_dir():
                self._note("foreign", path, "is no directory of a channel's offsets and is ignored")
                continue
            if is_deleted(path.name):
                continue
            if path.name == PATTERNS_DIRECTORY:
                self._check_patterns(path)
                continue
            for stranger in sorted(path.iterdir()):
                if not self._is_offset_file(stranger):
                    self._note("foreign", stranger, "is no offset file and is ignored")
            self._check_offsets_of(path)

    def _check_patterns(self, directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            if path.name.startswith(DRAFT_PREFIX):
                continue  # what a kill in the middle of writing leaves; the next one writes over it
            try:
                check_subscriber_id(path.name)
                read_seen(path)
            except NameRuleError:
                self._note("foreign", path, "is no memory of a pattern's subscriber and is ignored")
            except PatternFileDamaged as damage:
                text = f"is damaged: {damage}; its channels without an offset are read from their start next time"
                self._problem("pattern", path, text)
            except OSError as error:
                self._problem("unreadable", path, f"cannot be read: {error.strerror}")

    @staticmethod
    def _is_offset_file(path: Path) -> bool:
        if path.name.endswith(PARTS_SUFFIX):
            return path.with_suffix(OFFSET_SUFFIX).exists()
        return path.name.endswith((OFFSET_SUFFIX, OFFSET_SUFFIX + ".new"))

    def _check_offsets_of(self, path: Path) -> None:
        channel = self._directory.channel(path.name)
        for id, parsed in list_offsets(path):
            self._result.offset_files += 1
            file = path / f"{id}{OFFSET_SUFFIX}"
            if not id.startswith(PEER_PREFIXES):
                try:
                    check_subscriber_id(id)
                except NameRuleError as error:
                    self._note("name", file, f"{error}; as long as it is there it holds segments back")
            if parsed.damaged is not None:
                way_out = f"`keyop offsets set {path.name} {id} WHERE` says where it goes on"
                text = f"counts as 0 and frees no segment: {parsed.damaged}; {way_out}"
                self._problem("offset", file, text)
                continue
            # The file was read first: what a writer does meanwhile only moves the channel's end away from it.
            aligned, why = align_offset(channel, parsed.value)
            if why is not None:
                text = f"the offset {parsed.value} is {why}; the subscriber goes on at {aligned}"
                self._problem("offset", file, text, parsed.value)
            self._check_parts(channel, file.with_suffix(PARTS_SUFFIX), parsed.value)

    def _check_parts(self, channel: Path, file: Path, offset: int) -> None:
        parts = read_parts(file)
        if parts is None:
            return
        where, fault = places(offset, parts)
        if parts.damaged is not None:
            text = f"counts as absent: {fault}; all parts go on at {offset}, and messages may come again"
            self._problem("parts", file, text)
            return
        if fault is not None and not self._result.writer_runs:
            self._note("parts", file, f"counts as absent: {fault}; all parts go on there")
        for part, one in enumerate(where, 1):
            aligned, why = align_offset(channel, one)
            if why is not None and one != offset:
                self._problem("parts", file, f"part {part} is at {one}, {why}; it goes on at {aligned}", one)

    # ---- journal

    def _check_journal(self) -> None:
        paths = [path for name in NAMES if (path := self._directory.journal / name).exists()]
        if self._result.writer_runs:
            return  # it changes under the eyes, and it is its writer's business
        contents = []
        for path in paths:
            try:
                contents.append(JournalContents(path))
            except OSError as error:
                self._problem("unreadable", path, f"cannot be read: {error.strerror}")
                continue
            if not contents[-1].live and _has_a_header(path):
                self._problem("journal", path, "both copies of its header are damaged; its frames do not count")
        live = sorted((file for file in contents if file.live), key=lambda file: file.first_sequence)
        named = self._check_frames(live) if live else set()
        self._check_spills(named)

    def _check_frames(self, live: list[JournalContents]) -> set[str]:
        """The names of the spill files that the frames need."""
        recovered = Recovered()
        frames = whole_run(live, recovered)
        for loss in recovered.notes:
            self._problem("journal", self._directory.journal, loss)
        if recovered.torn:
            # As a power cut in the middle of a commit leaves it; nobody can tell that from damage.
            self._note("journal", self._directory.journal, recovered.torn)
        names = ", ".join(file.path.name for file in live)
        text = (
            f"{names}: not at rest, {len(frames)} commits to be applied; the next writer (or `keyop recover`) does it"
        )
        self._note("journal", self._directory.journal, text)
        items = [item for frame in frames for item in frame.entries() if item.kind == entry.SPILLED]
        for item in items:
            file = self._directory.spill / item.id.decode(errors="replace")
            at, length, _check = entry.SPILL_REFERENCE.unpack(item.data)
            if _size(file) < at + length:
                text = f"{length} bytes of channel {item.channel.decode(errors='replace')} are missing in it"
                self._problem("journal", file, text, item.value)
        return {item.id.decode(errors="replace") for item in items}

    def _check_spills(self, named: set[str]) -> None:
        if not self._directory.spill.is_dir():
            return
        for path in sorted(self._directory.spill.iterdir()):
            if path.name not in named:
                self._note("spill", path, "left over; the next writer removes it if no process waits for it")


def _fault(path: Path, found: BadLine | None, length: int) -> tuple[str, Path, str]:
    """Kind, path and text for a line that is passed over; None for one that is too long to be read."""
    if found is None:
        return "oversized", path, f"a line of {length} bytes, the limit is {MAX_LINE_BYTES}; it is passed over"
    if found.fault is Fault.RECOVERED:
        return "damaged", path, f"a damaged line, whose last whole envelope is delivered: {found.reason}"
    return "damaged", path, f"a damaged line of {length} bytes, it is passed over: {found.reason}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail_bytes(path: Path) -> int:
    """How many bytes follow a file's last newline."""
    try:
        with path.open("rb", buffering=0) as file:
            fd = file.fileno()
            size = at = os.fstat(fd).st_size
            while at > 0:
                # Nearly always the file ends in a newline.
                begin = max(0, at - (1 if at == size else _READ_BYTES))
                newline = os.pread(fd, at - begin, begin).rfind(b"\n")
                if newline >= 0:
                    return size - (begin + newline + 1)
                at = begin
            return size
    except FileNotFoundError:
        return 0


def _has_a_header(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return any(os.pread(file.fileno(), FIRST_FRAME_BYTES, 0))
