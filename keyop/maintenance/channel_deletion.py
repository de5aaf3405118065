"""Deleting a channel: its messages, the offsets of all its subscribers and peers, and what was put back of it.

It is one transaction of the writer: after a crash the channel is there as it was, or gone. Its dead letters are a
channel of their own, and stay.
"""

from __future__ import annotations

from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import transaction
from keyop.configuration.settings import Settings
from keyop.errors import SubscriberBusy
from keyop.federation.known_ids import notes_file
from keyop.inspection import presence, survey
from keyop.inspection.presence import LiveSubscription
from keyop.names import PEER_PREFIXES, is_reserved, replay_channel
from keyop.protocol import entry
from keyop.storage.directory import DataDirectory
from keyop.storage.segments import list_segments


class Extent(NamedTuple):
    """What a deletion takes away."""

    segments: int
    bytes: int
    subscribers: list[str]
    """Ids, and peers' positions."""


def extent(directory: DataDirectory, channel: str) -> Extent:
    """What there is to be deleted. Raises `DataDirectoryError` if there is no such channel, and `OSError`."""
    survey.require_channel(directory, channel)
    segments, _ = list_segments(directory.channel(channel))
    total = sum(segment.path.stat().st_size for segment in segments)
    return Extent(len(segments), total, survey.subscriber_ids(directory, channel))


def delete_channel(settings: Settings, channel: str, *, force: bool = False) -> Extent:
    """Delete a channel. With ``force`` also under running subscribers, which begin anew.

    Raises `SubscriberBusy` while a subscriber runs (with ``force``: while hub or client exchange it),
    `DataDirectoryError` if there is no such channel, `PublishRefused`, and what `Attachment` raises.
    """
    directory = DataDirectory(settings.storage.data_dir)
    before = extent(directory, channel)
    names = [channel] if is_reserved(channel) else [channel, replay_channel(channel)]
    refuse_running(directory, names, force)
    flags = entry.FORCE if force else 0
    items = b"".join(entry.encode(entry.DELETE, name.encode(), flags=flags) for name in names)
    attachment = Attachment(settings)
    try:
        attachment.transact(transaction(items, entry.SYNC), channel)
    except SubscriberBusy:
        refuse_running(directory, names, force)  # it came between the look and the command
        raise
    finally:
        attachment.close()
    for name in names:
        notes_file(directory, name).unlink(missing_ok=True)
    return before


def refuse_running(directory: DataDirectory, names: list[str], force: bool) -> None:
    """Raise `SubscriberBusy`, which names who is in the way."""
    running = [held for held in presence.subscriptions(directory).values() if held.channel in names]
    if force:
        running = [held for held in running if held.id.startswith(PEER_PREFIXES)]
    if not running:
        return
    who = ", ".join(dict.fromkeys(_name(held) for held in running))  # some take what was put back, too
    them = "hub and client" if force else "them"
    otherwise = "" if force else ", or use --force: they begin anew then"
    raise SubscriberBusy(
        f"channel {names[0]!r} is in use by {who}; stop {them} first{presence.how_to_stop(directory)}{otherwise}"
    )


def _name(held: LiveSubscription) -> str:
    return f"{held.id} (pid {held.pid})"
