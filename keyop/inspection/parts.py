"""How far a subscriber is whose work several processes share: as far as the part that is furthest behind."""

from __future__ import annotations

from collections.abc import Sequence

from keyop.inspection.presence import LiveSubscription
from keyop.storage.directory import DataDirectory
from keyop.storage.parts import places, read_parts


def least(directory: DataDirectory, filed: int, live: Sequence[LiveSubscription]) -> int:
    """Where the next message begins for an id of which ``live`` is what living processes hold.

    ``filed`` is what its offset file says. Slots are ahead of the files by up to a tick; a part that nobody holds is
    where the file has it.
    """
    held = {one.part: one.offset for one in live if one.offset is not None}
    if not held:
        return filed
    channel, id, parts = live[0].channel, live[0].id, live[0].parts
    if len(held) < parts:
        where, _why = places(filed, read_parts(directory.parts_file(channel, id)))
        if len(where) != parts:
            return filed
        held = {**dict(enumerate(where, 1)), **held}
    return min(held.values())
