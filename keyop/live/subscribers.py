"""The rows of subscribers: files and slots of the same subscriber are one row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from keyop.inspection.parts import least
from keyop.inspection.presence import AttachedProcess, LiveSubscription
from keyop.live.backlog import Backlog, Sample
from keyop.live.files import ChannelFiles
from keyop.live.rates import Rates
from keyop.live.snapshot import SubscriberView
from keyop.storage.directory import DataDirectory
from keyop.storage.offsets import read_offset

_PEER_PREFIXES = ("fed-", "fedout-")
_STUCK_S = 10.0
# The writer files what a dead process has left in its slots when it has found that it is dead.
_DEPARTED_S = 5.0

_Key = tuple[str, str]


class SubscriberRows:
    """Makes them, and notes when each moved last."""

    def __init__(self, directory: DataDirectory, rates: Rates) -> None:
        self._directory = directory
        self._rates = rates
        self._backlog = Backlog(directory)
        self._held: set[_Key] | None = None
        # Channels that somebody has left or come to, and until when that is news.
        self._departed: dict[str, float] = {}
        # Offset and handled messages, and when they were seen first.
        self._moved: dict[_Key, tuple[int, int, float]] = {}

    def departed(self, attached: Sequence[AttachedProcess]) -> set[str]:
        """Channels that a subscriber has just left, or come to: their files have news."""
        held = {(one.channel, one.id) for process in attached for one in process.subscriptions}
        now_s = time.monotonic()
        # The first look looks at all files in any case.
        changed = held ^ self._held if self._held is not None else set()
        self._departed.update((channel, now_s + _DEPARTED_S) for channel, _ in changed)
        self._held = held
        for channel in [channel for channel, until_s in self._departed.items() if until_s < now_s]:
            del self._departed[channel]
        return set(self._departed)

    def rows(
        self, files: Mapping[str, ChannelFiles], ends: Mapping[str, int], attached: Sequence[AttachedProcess]
    ) -> tuple[SubscriberView, ...]:
        """One for each channel and id, sorted."""
        live: dict[_Key, list[LiveSubscription]] = {}
        for process in attached:
            for held in process.subscriptions:
                live.setdefault((held.channel, held.id), []).append(held)
        filed = {(channel, id) for channel, known in files.items() for id in known.offsets}
        keys = sorted(filed | live.keys())
        offsets = {key: self._offset(key, files, live.get(key)) for key in keys}
        lags = {key: max(0, ends.get(key[0], 0) - offset) for key, offset in offsets.items()}
        samples = self._backlog.look((*key, offsets[key], lag) for key, lag in lags.items() if lag)
        rows = tuple(
            self._row(key, offsets[key], lags[key], samples.get(key), live.get(key, []), _fault(key, files))
            for key in keys
        )
        for gone in self._moved.keys() - offsets.keys():
            del self._moved[gone]
        return rows

    def _offset(self, key: _Key, files: Mapping[str, ChannelFiles], live: list[LiveSubscription] | None) -> int:
        """Where its next message begins; of several processes that share the work the least."""
        if not live:
            return files[key[0]].offsets[key[1]].value
        held = [one.offset for one in live if one.offset is not None]
        if len(held) == live[0].parts:
            return min(held)
        # Where a part is that nobody holds, its files say; and where an exactly-once subscriber is, whose cursor is the
        # writer's.
        parsed = read_offset(self._directory.offset_file(*key))
        return least(self._directory, parsed.value if parsed is not None else 0, live)

    def _row(
        self,
        key: _Key,
        offset: int,
        lag_bytes: int,
        sample: Sample | None,
        live: list[LiveSubscription],
        fault: str | None,
    ) -> SubscriberView:
        handled = sum(one.handled for one in live)
        messages, is_exact = int(lag_bytes > 0), not lag_bytes
        if sample is not None:
            messages, is_exact = sample.messages_in(lag_bytes)
        return SubscriberView(
            channel=key[0],
            id=key[1],
            kind="peer" if key[1].startswith(_PEER_PREFIXES) else "subscriber",
            state=self._state(key, offset, lag_bytes, handled, live),
            pids=tuple(sorted({one.pid for one in live})),
            lag_bytes=lag_bytes,
            lag_messages=messages,
            lag_is_exact=is_exact,
            oldest_pending_unix_s=sample.first_unix_s if sample is not None and lag_bytes else None,
            handled_per_s=self._rates.per_s(("handled", key), handled),
            handled=handled if live else None,
            failed=sum(one.failed for one in live) if live else None,
            dead_lettered=sum(one.dead_lettered for one in live) if live else None,
            fault=fault,
            parts=live[0].parts if live else 1,
            parts_held=len({one.part for one in live}),
        )

    def _state(self, key: _Key, offset: int, lag_bytes: int, handled: int, live: list[LiveSubscription]) -> str:
        now_s = time.monotonic()
        known = self._moved.get(key)
        if known is None or known[:2] != (offset, handled) or not lag_bytes:
            known = self._moved[key] = offset, handled, now_s
        if not live:
            return "away"
        if not lag_bytes:
            return "idle"
        if any((one.attempts or 0) > 1 for one in live):
            return "retrying"
        return "busy" if now_s - known[2] < _STUCK_S else "stuck"


def _fault(key: _Key, files: Mapping[str, ChannelFiles]) -> str | None:
    known = files.get(key[0])
    parsed = known.offsets.get(key[1]) if known is not None else None
    return parsed.damaged if parsed is not None else None
