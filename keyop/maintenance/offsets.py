"""Moving a subscriber's offset, and forgetting a subscriber: through the writer, while nobody runs under the id.

What is moved is synced when this returns: an older place does not come back after a power cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import transaction
from keyop.configuration.settings import Settings
from keyop.errors import DataDirectoryError, SubscriberBusy
from keyop.inspection import lookback, presence, survey
from keyop.inspection.lookback import Where
from keyop.names import replay_channel
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset


class Moved(NamedTuple):
    """What became of an offset."""

    old: int | None
    """None where there was none."""
    new: int
    asked: int
    """Differs from ``new`` where no record begins at what was asked for."""


def set_offset(settings: Settings, channel: str, id: str, where: Where, *, create: bool = False) -> Moved:
    """Have a subscriber, or a federation peer, go on elsewhere. ``create``: also one that is not known.

    Raises `SubscriberBusy` while it runs, `DataDirectoryError` for a channel or subscriber that is not there, and what
    `Attachment` raises.
    """
    directory = DataDirectory(settings.storage.data_dir)
    survey.require_channel(directory, channel)
    if not create:
        require_subscriber(directory, channel, id)
    before = read_offset(directory.offset_file(channel, id))
    asked = lookback.offset_of(directory.channel(channel), where)
    item = entry.encode(entry.SET, channel.encode(), id.encode(), value=asked)
    with _at_rest(settings, directory, channel, id) as attachment:
        (new,) = attachment.transact(transaction(item, entry.SYNC), channel)
    return Moved(before.value if before is not None else None, new, asked)


def forget(settings: Settings, channel: str, id: str) -> None:
    """Forget a subscriber, with what was put back for it. Raises as `set_offset`."""
    directory = DataDirectory(settings.storage.data_dir)
    survey.require_channel(directory, channel)
    require_subscriber(directory, channel, id)
    names = [name for name in (channel, replay_channel(channel)) if directory.offset_file(name, id).exists()]
    items = b"".join(entry.encode(entry.FORGET, name.encode(), id.encode()) for name in names)
    with _at_rest(settings, directory, channel, id) as attachment:
        attachment.transact(transaction(items, entry.SYNC), channel)


def require_subscriber(directory: DataDirectory, channel: str, id: str) -> None:
    """Raise `DataDirectoryError` unless the channel knows the subscriber."""
    known = survey.subscriber_ids(directory, channel)
    if id not in known:
        names = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "") if known else "none"
        raise DataDirectoryError(f"channel {channel!r} has no subscriber {id!r} (there are: {names})")


@contextmanager
def _at_rest(settings: Settings, directory: DataDirectory, channel: str, id: str) -> Iterator[Attachment]:
    """While nobody runs under the id; the last look is the writer's."""
    held = presence.subscriptions(directory).get((channel, id))
    if held is not None:
        raise SubscriberBusy(
            f"channel {channel!r}: {id!r} runs (pid {held.pid}) and says itself where it is; "
            f"stop that process first{presence.how_to_stop(directory)}"
        )
    attachment = Attachment(settings)
    try:
        yield attachment
    finally:
        attachment.close()
