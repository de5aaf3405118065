"""One look after the other at a data directory: every series of the catalogue with its value."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from keyop.errors import DataDirectoryError
from keyop.inspection import at_rest, presence
from keyop.inspection.presence import AttachedProcess
from keyop.ipc import layout
from keyop.live.board import BoardWatch
from keyop.live.files import FileWatch
from keyop.live.ports import PortWatch
from keyop.live.rates import Rates
from keyop.live.subscribers import SubscriberRows
from keyop.metrics.port_counts import Counts, count_in, ring_fill
from keyop.metrics.totals import Count, Key, Totals
from keyop.names import is_channel
from keyop.publishing.publish_times import ATOMIC, OTHER_CHANNELS
from keyop.storage.directory import DataDirectory
from keyop.version import __version__

_ROLES = ("hub", "client", "subscriber", "publisher", "unknown")
_STATES = (*layout.STATE_NAMES.values(), "not running", "unseen")
_OF_A_CHANNEL = ("keyop_channel", "keyop_publish", "keyop_subscriber", "keyop_delivery", "keyop_handler")
_SHARED_MEMORY = Path("/dev/shm")


class Observation(NamedTuple):
    """What one look found, by series."""

    gauges: dict[Key, float]
    counts: dict[Key, Count]


class Observer:
    """Looks at one data directory, one thread at a time. Counters keep what processes that are gone have counted."""

    def __init__(self, directory: DataDirectory) -> None:
        """Raises `DataDirectoryError` if there is no such directory."""
        if not directory.path.is_dir():
            raise DataDirectoryError(f"{directory.path}: there is no such directory")
        self._directory = directory
        self._board = BoardWatch(directory)
        self._ports = PortWatch(directory)
        self._files = FileWatch(directory)
        self._rates = Rates()
        self._subscribers = SubscriberRows(directory, self._rates)
        self._totals = Totals()
        self._channels: set[str] = set()
        # The end of each channel, and when it was seen to have grown.
        self._seen: dict[str, tuple[int, float]] = {}

    def close(self) -> None:
        """Give up what is mapped."""
        self._board.close()
        self._ports.close()

    def look(self) -> Observation:
        """How things are now. What cannot be seen is left out."""
        self._rates.begin(0)
        self._board.look()
        attached = self._ports.look()
        trouble = self._files.look(self._subscribers.departed(attached))
        gauges: dict[Key, float] = {
            Key("keyop_build_info", (__version__,)): 1,
            Key("keyop_scrape_complete"): trouble is None,
        }
        counted: Counts = {}
        self._look_at_writer(gauges, counted)
        self._look_at_room(gauges)
        self._look_at_processes(attached, gauges, counted)
        ends = self._look_at_channels(gauges, counted)
        self._look_at_subscribers(attached, ends, gauges)
        return Observation(gauges, self._totals.look(counted, self._is_wanted))

    def _is_wanted(self, key: Key) -> bool:
        """Whether a series of what is gone is still told: not where its channel was deleted."""
        if not key.name.startswith(_OF_A_CHANNEL) or key.labels[0] in (ATOMIC, OTHER_CHANNELS):
            return True
        return key.labels[0] in self._channels

    # ---- the writer, and room

    def _look_at_writer(self, gauges: dict[Key, float], counted: Counts) -> None:
        lives = presence.writer_lives(self._directory)
        board = self._board.seen if lives else None
        state = "not running" if not lives else "unseen" if board is None else layout.STATE_NAMES.get(board.state, "")
        gauges[Key("keyop_writer_up")] = lives
        for name in _STATES:
            gauges[Key("keyop_writer_state", (name.replace(" ", "_"),))] = name == state
        gauges[Key("keyop_writer_stalled")] = state == "stalled"
        if board is None:
            return
        gauges[Key("keyop_writer_strict")] = not board.words[layout.SYNC_INTERVAL_MS]
        source = f"writer {board.incarnation}"
        for name, total in board.counters().items():
            counted[source, Key(f"keyop_writer_{'commits' if name == 'frames' else name}")] = total
        counted[source, Key("keyop_writer_commit_seconds")] = board.times(layout.BOARD_COMMIT_TIMES)
        counted[source, Key("keyop_writer_sync_seconds")] = board.times(layout.BOARD_SYNC_TIMES)

    def _look_at_room(self, gauges: dict[Key, float]) -> None:
        for name, path in (("storage", self._directory.path), ("shared_memory", _SHARED_MEMORY)):
            try:
                found = os.statvfs(path)
            except OSError:
                continue
            gauges[Key(f"keyop_{name}_free_bytes")] = found.f_bavail * found.f_frsize
            gauges[Key(f"keyop_{name}_size_bytes")] = found.f_blocks * found.f_frsize
        journal = self._directory.journal
        try:
            gauges[Key("keyop_journal_bytes")] = sum(_sizes(journal)) + sum(_sizes(self._directory.spill))
            gauges[Key("keyop_journal_at_rest")] = at_rest.is_at_rest(self._directory)
        except OSError:
            pass  # a failing disk is what is looked for elsewhere

    # ---- processes and their peers

    def _look_at_processes(self, attached: list[AttachedProcess], gauges: dict[Key, float], counted: Counts) -> None:
        roles = Counter(process.role for process in attached)
        for role in _ROLES:
            gauges[Key("keyop_processes", (role,))] = roles[role]
        ports = self._ports.mapped
        for process in attached:
            port = ports.get(process.port)
            if port is None:
                continue
            fill = Key("keyop_ring_fill_ratio", (process.role,))
            gauges[fill] = max(gauges.get(fill, 0.0), ring_fill(port))
            count_in(port, process, counted)
            for peer in process.peers:
                labels = (process.role, peer.name or peer.address)
                for name, value in (
                    ("connected", peer.state == "connected"),
                    ("refused", peer.state == "refused"),
                    ("behind_bytes", peer.behind_bytes),
                    ("waiting_bytes", peer.waiting_bytes),
                ):
                    # A peer has several connections where ephemeral ones stand beside the durable one.
                    key = Key(f"keyop_peer_{name}", labels)
                    before = gauges.get(key, 0)
                    gauges[key] = max(before, value) if isinstance(value, bool) else before + value

    # ---- channels and subscribers

    def _look_at_channels(self, gauges: dict[Key, float], counted: Counts) -> dict[str, int]:
        """Their ends."""
        source = f"writer {self._board.life}"
        self._channels = {name for name in self._files.channels if is_channel(name)}
        on_board = self._board.ends_and_records(self._channels)
        ends = {}
        for name in self._channels:
            known = self._files.channels[name]
            if not known.exists and name not in on_board:
                continue  # somebody subscribes to it, and nothing was published
            # The writer puts a channel on its board when it first writes to it.
            end, messages = on_board.get(name, (known.end_offset, 0))
            if self._board.seen is not None:
                counted[source, Key("keyop_channel_messages", (name,))] = messages
            ends[name] = end
            # Not counted from look to look: the offset is the total, whoever looks.
            gauges[Key("keyop_channel_appended_bytes", (name,))] = end
            gauges[Key("keyop_channel_stored_bytes", (name,))] = known.bytes + max(0, end - known.end_offset)
            written_s = self._written_s(name, end, known.last_write_unix_s)
            if written_s:
                gauges[Key("keyop_channel_last_write_timestamp_seconds", (name,))] = written_s
        self._seen = {name: self._seen[name] for name in ends}
        return ends

    def _written_s(self, name: str, end: int, by_file_s: float | None) -> float:
        """When it was last written to: by its files, which are looked at in turn, and by what has grown since."""
        before, grown_s = self._seen.get(name, (end, 0.0))
        if end != before:
            grown_s = round(time.time(), 3)
        self._seen[name] = end, grown_s
        return max(grown_s, by_file_s or 0.0)

    def _look_at_subscribers(
        self, attached: list[AttachedProcess], ends: dict[str, int], gauges: dict[Key, float]
    ) -> None:
        now_s = time.time()
        for row in self._subscribers.rows(self._files.channels, ends, attached):
            if row.kind != "subscriber" or not is_channel(row.channel):
                continue
            labels = (row.channel, row.id)
            pending_s = row.oldest_pending_unix_s
            gauges[Key("keyop_subscriber_attached", labels)] = len(row.pids)
            gauges[Key("keyop_subscriber_lag_bytes", labels)] = row.lag_bytes
            gauges[Key("keyop_subscriber_lag_messages", labels)] = row.lag_messages
            gauges[Key("keyop_subscriber_oldest_pending_seconds", labels)] = (
                max(0.0, now_s - pending_s) if pending_s is not None else 0.0
            )


def _sizes(directory: Path) -> Iterable[int]:
    try:
        with os.scandir(directory) as entries:
            return [entry.stat().st_size for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []
