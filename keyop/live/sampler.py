"""One look after the other, each a `Snapshot`: the board, the ports, some of the files, and what has changed since."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from keyop.errors import DataDirectoryError
from keyop.inspection import presence
from keyop.inspection.presence import AttachedProcess
from keyop.ipc import layout
from keyop.live.board import BoardWatch
from keyop.live.channels import ChannelRows
from keyop.live.files import FileWatch
from keyop.live.ports import PortWatch
from keyop.live.processes import ProcessRows
from keyop.live.rates import Rates
from keyop.live.snapshot import PeerView, Snapshot, WriterView
from keyop.live.subscribers import SubscriberRows
from keyop.storage.directory import DataDirectory


class Sampler:
    """Looks at one data directory. Not for several threads at once; between looks it may change threads."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._board = BoardWatch(directory)
        self._ports = PortWatch(directory)
        self._files = FileWatch(directory)
        self._rates = Rates()
        self._channels = ChannelRows(self._board)
        self._subscribers = SubscriberRows(directory, self._rates)
        self._processes = ProcessRows(self._rates)
        self._last_s: float | None = None

    def close(self) -> None:
        """Give up what is mapped."""
        self._board.close()
        self._ports.close()

    def look(self) -> Snapshot:
        """How things are now. What cannot be seen is told in `Snapshot.trouble`, and never raised."""
        now_s = time.monotonic()
        elapsed_s = now_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = now_s
        self._rates.begin(elapsed_s)
        self._board.look()
        attached = self._ports.look()
        trouble = self._files.look(self._subscribers.departed(attached))
        files = self._files.channels
        channels, ends = self._channels.look(files, attached, elapsed_s)
        writer = self._writer()
        return Snapshot(
            data_dir=str(self._directory.path),
            taken_unix_s=round(time.time(), 3),
            elapsed_s=elapsed_s,
            trouble=trouble,
            writer=writer,
            channels=channels,
            subscribers=self._subscribers.rows(files, ends, attached),
            peers=self._peers(attached),
            processes=self._processes.rows(writer, presence.supervisor_pid(self._directory), attached),
        )

    def _writer(self) -> WriterView:
        directory = self._directory
        # `Path.is_dir` raises where a directory above may not be entered.
        if not os.path.isdir(directory.path):
            return WriterView("no directory", None, None, None, 0.0, 0.0)
        if not presence.writer_lives(directory):
            state = "not running" if os.path.isdir(directory.channels) else "empty"
            return WriterView(state, None, None, None, 0.0, 0.0)
        pid = presence.writer_pid(directory)
        board = self._board.seen
        if board is None:
            return WriterView("unseen", pid, None, None, 0.0, 0.0)
        counters = board.counters()
        errno = int(board.words[layout.STALL_ERRNO])
        # A board of another life begins to count anew.
        life = board.incarnation
        return WriterView(
            state=layout.STATE_NAMES.get(board.state, "unknown"),
            pid=pid,
            mode="periodic" if board.words[layout.SYNC_INTERVAL_MS] else "strict",
            stalled=os.strerror(errno) if errno and board.state == layout.STALLED else None,
            commits_per_s=self._rates.per_s(("frames", life), counters["frames"]),
            syncs_per_s=self._rates.per_s(("syncs", life), counters["syncs"]),
        )

    def _peers(self, attached: Sequence[AttachedProcess]) -> tuple[PeerView, ...]:
        return tuple(
            PeerView(
                role=process.role,
                name=peer.name,
                address=peer.address,
                state=peer.state,
                sent_per_s=self._rates.per_s(("sent", process.port, peer.name, peer.address), peer.sent),
                received_per_s=self._rates.per_s(("received", process.port, peer.name, peer.address), peer.received),
                sent=peer.sent,
                received=peer.received,
                round_trip_ms=peer.round_trip_ms,
                behind_bytes=peer.behind_bytes,
                waiting_bytes=peer.waiting_bytes,
            )
            for process in attached
            for peer in process.peers
        )


def require(directory: DataDirectory) -> None:
    """Raise `DataDirectoryError` if there is no such directory. One in which nobody has published yet is fine."""
    try:
        directory.path.stat()
    except FileNotFoundError:
        raise DataDirectoryError(f"{directory.path}: there is no such directory") from None
    except OSError as error:
        raise DataDirectoryError(f"{directory.path}: cannot be looked at: {error.strerror}") from error


def look_twice(directory: DataDirectory, *, interval_s: float) -> Snapshot:
    """A look that has rates: of two, this far apart, the second one. Raises `DataDirectoryError`."""
    require(directory)
    sampler = Sampler(directory)
    try:
        sampler.look()
        time.sleep(interval_s)
        return sampler.look()
    finally:
        sampler.close()
