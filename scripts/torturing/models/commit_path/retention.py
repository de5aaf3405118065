"""Removal of segments that every subscriber has consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import segments_of
from torturing.models.commit_path.cursors import list_offsets

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World
    from torturing.models.commit_path.writer import Writer


def look(world: World, writer: Writer) -> Iterator[str]:
    """One look, as a thread of its own has it: what may go now, a checkpoint, and then what still may."""
    found = removals(world)
    if not found:
        return
    world.say("segments {} may go", found)
    done: list[bool] = []
    if world.rules.removed_after_checkpoint:
        writer.request_checkpoint(lambda: done.append(True))
        while not done:
            yield "retention waits"
    # The last look and the removal are one step here, between two commits. In the writer they are microseconds apart.
    yield "retention goes on"
    while writer.is_committing:
        yield "retention waits"
    still = removals(world) if world.rules.removal_looks_again else found
    for channel, start in still:
        if (channel, start) not in found:
            continue
        directory = world.disk.channels.directory(channel)
        if directory is not None and start in directory.names:
            world.ledger.note_removed(channel, start)
            directory.remove(start)
            world.say("{}: segment {} is removed", channel, start)
    yield "segment.removed"
    for channel, _start in still:
        directory = world.disk.channels.directory(channel)
        if directory is not None:
            directory.sync()
    yield "removal.synced"


def removals(world: World) -> list[tuple[str, int]]:
    """Which segments lie before every offset file of their channel."""
    found = []
    for channel in world.disk.channels.names:
        segments = segments_of(world.disk.channels.directory(str(channel)))
        if not segments:
            continue
        consumed = min(list_offsets(world, str(channel)).values(), default=0)
        following = [start for start, _file in segments[1:]]
        if not world.rules.active_segment_stays:
            following.append(segments[-1][0] + len(segments[-1][1]))
        for (start, _file), behind in zip(segments, following, strict=False):
            if behind > consumed or behind == start:
                break
            found.append((str(channel), start))
    return found
