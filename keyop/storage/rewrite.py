"""Writing again what a failed sync may have dropped from the page cache."""

from __future__ import annotations

from pathlib import Path

from keyop.protocol import entry
from keyop.storage import disk
from keyop.storage.channel_log import SegmentFile
from keyop.storage.journal_file import JournalContents


def rewrite_segment(journal_files: list[Path], segment: SegmentFile) -> None:
    """Put what the journal holds of a segment to its place again, as far as the writer has come. Raises `OSError`.

    It may append meanwhile: the bytes and their places are the same. Where its next ones belong, another program may
    have written.
    """
    channel = segment.path.parent.name.encode()
    end = segment.start + segment.length
    spill_directory = journal_files[0].parent / "spill"
    for path in journal_files:
        for frame in JournalContents(path).frames:
            for item in frame.entries():
                if item.channel == channel and segment.start <= item.value < end:
                    _write(segment, item, spill_directory)


def _write(segment: SegmentFile, item: entry.Entry, spill_directory: Path) -> None:
    if item.kind == entry.APPEND:
        disk.write_at(segment.fd, item.data, item.value - segment.start)
    elif item.kind == entry.SPILLED:
        at, length, _check = entry.SPILL_REFERENCE.unpack(item.data)
        with (spill_directory / item.id.decode()).open("rb") as file:
            file.seek(at)
            disk.write_at(segment.fd, file.read(length), item.value - segment.start)
