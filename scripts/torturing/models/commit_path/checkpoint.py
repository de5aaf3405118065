"""Checkpoints: what a journal file says is brought to the device elsewhere, then the file is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from torturing.models.commit_path.disk import Directory, File, SyncFailedError
from torturing.models.commit_path.entries import Append, Key
from torturing.models.commit_path.journal import NAMES, JournalContents
from torturing.models.commit_path.spill import read_spilled

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World
    from torturing.models.commit_path.writer import Writer


class Checkpoint:
    """What has to be synced before journal file ``index`` may be freed; None: no file is."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.segments: dict[tuple[str, int], File] = {}
        self.files: dict[Key, File] = {}
        self.plain_files: list[File] = []
        self.directories: dict[Directory, None] = {}
        self.spills: set[str] = set()
        self.then: list[Callable[[], None]] = []
        self.done = False

    def doing(self, world: World, writer: Writer) -> Iterator[str]:
        """Do it step by step, as a thread beside the commits does."""
        rules = world.rules
        if rules.checkpoint_syncs_segments:
            for (channel, start), file in self.segments.items():
                yield from _until_it_holds(world, file, partial(_rewrite_segment, world, channel, start, file))
        yield "checkpoint.segments_synced"
        if rules.checkpoint_syncs_offsets:
            for key, file in self.files.items():
                yield from _until_it_holds(world, file, partial(writer.cursors.write_again, key, file), forget=True)
        for file in self.plain_files:
            yield from _until_it_holds(world, file, partial(_write_itself, file))
        if rules.checkpoint_syncs_names:
            for directory in self.directories:
                directory.sync()
                yield "checkpoint.directory_synced"
        world.say("a checkpoint is synced")
        yield "checkpoint.synced"
        if self.index is not None:
            yield from writer.journal.freeing(self.index)
        for then in self.then:
            then()
        self.done = True


def _until_it_holds(world: World, file: File, mend: Callable[[], None], *, forget: bool = False) -> Iterator[str]:
    """After a failed sync the cells are written again before the next one."""
    while True:
        try:
            world.sync(file, forget=forget)
        except SyncFailedError:
            yield "a sync failed"
            mend()
        else:
            return


def _write_itself(file: File) -> None:
    file.write(0, list(file.cells))


def _rewrite_segment(world: World, channel: str, start: int, file: File) -> None:
    """Put everything that the journal holds of a segment to its place again, as far as it is applied already."""
    if not world.rules.segments_written_again:
        return
    # Not up to the file's end: another program may have appended what no frame speaks of.
    end = min(start + len(file), world.writer.channel(channel).end)
    for name in NAMES:
        for frame in JournalContents(world, world.disk.journal, name).frames:
            for item in frame.entries:
                if type(item) is Append and item.channel == channel and start <= item.offset < end:
                    file.write(item.offset - start, read_spilled(world, item) or item.cells)
