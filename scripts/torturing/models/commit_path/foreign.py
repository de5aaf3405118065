"""Another program that appends to a channel and knows nothing of our writer, as keyop-messenger in Go does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturing.models.commit_path.channel import ROLL_CELLS, segments_of
from torturing.models.commit_path.cursors import list_offsets
from torturing.models.commit_path.disk import File
from torturing.models.commit_path.line import Line, behind_newline
from torturing.models.commit_path.subscriber import INPUT

if TYPE_CHECKING:
    from torturing.models.commit_path.world import World


def append(world: World, *, may_roll: bool) -> None:
    """Append whole lines to the last segment, and sync them. A torn line is cut first, or (older releases) is not.

    Left out is what makes offsets ambiguous, or readers see a gap that is none: a second write where segments overlap
    already, one into a segment that the writer has just made and not come to yet, and one that a subscriber's offset
    lies beyond, because the power has taken what it had handled.
    """
    directory = world.disk.channels.directory(INPUT)
    segments = segments_of(directory)
    if directory is None or not segments:
        return
    before = segments[-2][0] + len(segments[-2][1]) if len(segments) > 1 else segments[-1][0]
    if before > segments[-1][0] or (before < segments[-1][0] and any(port.slot for port in world.ports)):
        return
    start, file = segments[-1]
    if max(list_offsets(world, INPUT).values(), default=0) > start + len(file):
        return
    chance = world.chance
    whole = behind_newline(file.cells, len(file))
    if whole < len(file) and (None in file.cells[whole:] or chance.random() < 0.5):
        file.cut(whole)
    lines = [Line("foreign", world.next_number(), INPUT, chance.choice((2, 3, 4)), foreign=True) for _ in range(2)]
    for line in lines[: chance.randint(1, 2)]:
        if (
            may_roll
            and world.mode.rolling
            and len(file) >= ROLL_CELLS
            and not len(file) - behind_newline(file.cells, len(file))
        ):
            start, file = start + len(file), File()
            directory.put(start, file)
        file.write(len(file), line.cells)
        file.sync()
        directory.sync()
        world.disk.channels.sync()
        world.ledger.note_foreign(line)
        world.say("another program appends {} to segment {}", line, start)
