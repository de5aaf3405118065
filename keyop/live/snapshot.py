"""What one look shows: plain values. Times are Unix times: a row that stands still is the same in every look."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


class View:
    """One row."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as JSON has them."""
        return {name: getattr(self, name) for name in _names(type(self))}


_names_of: dict[type[Any], tuple[str, ...]] = {}


def _names(kind: type[Any]) -> tuple[str, ...]:
    if kind not in _names_of:
        _names_of[kind] = tuple(field.name for field in fields(kind))
    return _names_of[kind]


@dataclass(frozen=True, slots=True)
class WriterView(View):
    """The writer process."""

    state: str
    """As in `keyop.inspection.survey.StatusReport`, or ``no directory`` and ``empty``: nobody has published yet."""
    pid: int | None
    mode: str | None
    """``strict`` or ``periodic``."""
    stalled: str | None
    """Why it waits."""
    commits_per_s: float
    """Group commits."""
    syncs_per_s: float


@dataclass(frozen=True, slots=True)
class ChannelView(View):
    """One channel."""

    channel: str
    messages_per_s: float | None
    """Committed since the look before; None where no board counts them."""
    bytes_per_s: float
    history: tuple[float, ...]
    """`messages_per_s` of the last looks, the oldest first; empty while all of them are 0."""
    bytes: int
    """In its segments."""
    end_offset: int
    subscribers: int
    """Offset files and live subscriptions, those of peers included."""
    last_write_unix_s: float | None


@dataclass(frozen=True, slots=True)
class SubscriberView(View):
    """One subscriber, or a peer's position, over all processes that share it."""

    channel: str
    id: str
    kind: str
    """``subscriber`` or ``peer``."""
    state: str
    """``idle``: nothing is there; ``busy``; ``retrying``: its message failed before; ``stuck``: something is there, and
    it has not moved for ten seconds; ``away``: no process of this host handles it."""
    pids: tuple[int, ...]
    lag_bytes: int
    lag_messages: int
    lag_is_exact: bool
    """Whether `lag_messages` was counted. Otherwise it is estimated from the messages that come next."""
    oldest_pending_unix_s: float | None
    """The publisher's time of the message that comes next."""
    handled_per_s: float
    handled: int | None
    """Of its processes, since they subscribed; None where there are none."""
    failed: int | None
    dead_lettered: int | None
    fault: str | None
    """What is wrong with the offset file: it counts as 0 then."""
    parts: int
    """How many processes may share its work; 1 where nobody holds it."""
    parts_held: int
    """How many of them do."""


@dataclass(frozen=True, slots=True)
class PeerView(View):
    """Another host, as hub or client stand with it."""

    role: str
    """What this host is to it: ``hub`` or ``client``."""
    name: str
    address: str
    state: str
    """``connected``, ``away`` or ``refused``."""
    sent_per_s: float
    received_per_s: float
    sent: int
    received: int
    round_trip_ms: float | None
    behind_bytes: int
    """What it has not acknowledged of its channels."""
    waiting_bytes: int
    """What it has sent and what is not on the disk yet."""


@dataclass(frozen=True, slots=True)
class ProcessView(View):
    """A process that is attached, the writer, or the supervisor."""

    role: str
    pid: int | None
    work: str
    """Its subscriptions, in words."""
    rss_bytes: int | None
    """None where the system does not tell."""
    cpu_percent: float | None
    """Of one core, since the look before."""
    started_unix_s: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. Rates are per second, over `elapsed_s`."""

    data_dir: str
    taken_unix_s: float
    elapsed_s: float
    """Since the look before; 0 for the first, whose rates are 0."""
    trouble: str | None
    """What kept this look from seeing all, as a sentence."""
    writer: WriterView
    channels: tuple[ChannelView, ...]
    subscribers: tuple[SubscriberView, ...]
    peers: tuple[PeerView, ...]
    processes: tuple[ProcessView, ...]

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "data_dir": self.data_dir,
            "taken_unix_s": self.taken_unix_s,
            "elapsed_s": self.elapsed_s,
            "trouble": self.trouble,
            "writer": self.writer.to_json(),
            "channels": [row.to_json() for row in self.channels],
            "subscribers": [row.to_json() for row in self.subscribers],
            "peers": [row.to_json() for row in self.peers],
            "processes": [row.to_json() for row in self.processes],
        }
