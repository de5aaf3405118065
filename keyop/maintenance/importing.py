"""Putting envelopes that were exported into channels, with their ids and times.

A message is in a channel once. So ids are looked up in the channel's files first, however old they are, and one import
works at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from keyop.attachment.attachment import Attachment
from keyop.attachment.held_cursor import transaction
from keyop.configuration.settings import Settings
from keyop.errors import ChannelNameError, KeyopError, PublishTimeout, SubscriberBusy
from keyop.federation.id_stretches import Loaded
from keyop.federation.known_ids import ChannelIds, notes_file
from keyop.inspection import presence
from keyop.ipc import lease
from keyop.messages.envelope import BadLine, decode_line_raw, readable_text
from keyop.messages.json_text import quote, scan_object
from keyop.messages.replayed import FOR, LETTER
from keyop.names import check_channel, is_replay
from keyop.protocol import entry
from keyop.protocol.inbound import id_hash

_LOCK = "import.lock"
_PATIENCE_S = 10.0
_LOOK_S = 0.02


class NotImported(KeyopError):
    """A line that is no message for a channel. All before it are imported, nothing after it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number


class _Ready(NamedTuple):
    number: int
    channel: str
    id: bytes
    hash: int
    line: bytes


OnBad = Callable[[NotImported], None]


class Importer:
    """Imports batches of lines, each in one transaction. Use it in a ``with`` block."""

    def __init__(
        self,
        settings: Settings,
        *,
        channel: str | None = None,
        skip_existing: bool = False,
        on_bad: OnBad | None = None,
    ) -> None:
        """``channel``: into this one, wherever the messages come from. ``skip_existing``: pass over what is there.

        ``on_bad`` is told of a bad line, which is passed over; without it the line is raised. Raises `SubscriberBusy`
        while another import works, and what `Attachment` raises.
        """
        self._channel = channel
        self._skip_existing = skip_existing
        self._on_bad = on_bad
        self._max_bytes = settings.storage.max_message_bytes
        self._ids: dict[str, ChannelIds] = {}
        self._loaded = Loaded()
        self.imported = 0
        self.existing = 0
        """Messages that were passed over because they are there."""
        self.skipped = 0
        """Bad lines that were passed over."""
        self._attachment = Attachment(settings)
        self._directory = self._attachment.directory
        held = lease.acquire(self._directory.run / _LOCK)
        if held is None:
            self._attachment.close()
            raise SubscriberBusy(f"{self._directory.path}: another import works here: wait until it is done")
        self._lease = held
        self._wait_for_the_dead()

    def _wait_for_the_dead(self) -> None:
        """What an import handed over that was killed is to be in the files before anything is looked up."""
        deadline = time.monotonic() + _PATIENCE_S
        while not all(process.alive for process in presence.attached(self._directory)):
            if time.monotonic() > deadline:
                self.close()
                raise PublishTimeout(f"{self._directory.path}: the writer does not take up what dead processes left")
            time.sleep(_LOOK_S)

    def add(self, lines: list[tuple[int, bytes | None]]) -> None:
        """Import numbered lines; None for one that is too long. Raises `NotImported`, and what `transact` raises."""
        looked = [self._look(number, text) for number, text in lines]
        known = self._known([each for each in looked if isinstance(each, _Ready)])
        good: list[_Ready] = []
        for each in looked:
            if isinstance(each, _Ready) and (each.channel, each.hash) not in known:
                known.add((each.channel, each.hash))  # once more in the same batch is once too often
                good.append(each)
            elif isinstance(each, _Ready) and self._skip_existing:
                self.existing += 1
            else:
                self._commit(good)
                good = []
                self._bad(_existing(each) if isinstance(each, _Ready) else each)
        self._commit(good)

    def _bad(self, bad: NotImported) -> None:
        if self._on_bad is None:
            raise bad
        self.skipped += 1
        self._on_bad(bad)

    # ---- one line

    def _look(self, number: int, text: bytes | None) -> _Ready | NotImported:
        if text is None:
            return NotImported(number, "too long for a message")
        text = text.strip()
        found = decode_line_raw(text)
        if isinstance(found, BadLine):
            return NotImported(number, f"not an envelope: {found.reason}")
        channel = self._channel or found.channel
        if not found.id:
            return NotImported(number, "the envelope has no id")
        try:
            check_channel(channel)
        except ChannelNameError as error:
            return NotImported(number, str(error))
        if is_replay(channel):
            return NotImported(number, f"channel {channel}: what was put back is for a subscriber where it comes from")
        line = _for_channel(text, channel) if channel != found.channel or FOR.encode() in text else text
        if len(line) + 1 > self._max_bytes:
            return NotImported(
                number, f"{len(line) + 1} bytes, the limit (storage.max_message_bytes) is {self._max_bytes}"
            )
        id = found.id.encode("utf-8", "surrogatepass")
        return _Ready(number, channel, id, id_hash(id), line + b"\n")

    # ---- a batch

    def _known(self, ready: list[_Ready]) -> set[tuple[str, int]]:
        known: set[tuple[str, int]] = set()
        for channel, group in _by_channel(sorted(ready, key=lambda each: each.channel)):
            ids = self._ids.get(channel)
            if ids is None:
                notes = notes_file(self._directory, channel)
                ids = self._ids[channel] = ChannelIds(self._directory.channel(channel), notes, self._loaded)
            end = self._attachment.channel_end(channel)
            there = ids.known([each.id for each in group], [each.hash for each in group], end)
            known |= {(channel, hash) for hash in there}
        return known

    def _commit(self, ready: list[_Ready]) -> None:
        if not ready:
            return
        entries = b"".join(
            entry.encode(entry.APPEND, channel.encode(), data=b"".join(each.line for each in group))
            for channel, group in _by_channel(ready)
        )
        self._attachment.transact(transaction(entries, entry.SYNC), ready[0].channel)
        self.imported += len(ready)

    # ---- the end

    def close(self) -> None:
        """Let the next import work, and detach."""
        for ids in self._ids.values():
            ids.close()
        self._lease.release()
        self._attachment.close()

    def __enter__(self) -> Importer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _existing(ready: _Ready) -> NotImported:
    return NotImported(
        ready.number,
        f"message {ready.id.decode(errors='replace')} is in channel {ready.channel} already: "
        "was this imported before? --skip-existing passes over what is there",
    )


def _by_channel(ready: list[_Ready]) -> Iterator[tuple[str, list[_Ready]]]:
    for channel, group in groupby(ready, key=lambda each: each.channel):
        yield channel, list(group)


def _for_channel(text: bytes, channel: str) -> bytes:
    """The envelope for another channel; a message that was put back is an ordinary one there."""
    members = scan_object(readable_text(text))
    kept = [
        b"%b:%b" % (quote(key), quote(channel) if key.casefold() == "channel" else value_text.encode())
        for key, _, value_text in members
        if key not in (FOR, LETTER)
    ]
    return b"{%b}" % b",".join(kept)
