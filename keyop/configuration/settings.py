"""What a process works with once its configuration is read: plain frozen values, one class a section.

`keyop.config` reads files and environment, checks them and makes a `Settings`. That needs pydantic, which costs a
small machine more time and memory than all the rest: `keyop.configuration.lookup` does without it where there is
nothing to read. So this module imports the standard library only.

Fields are named like the keys of the file. MB means MiB. A duration is a number of seconds here. What a value may be
is checked by `keyop.config`, not here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ENVIRONMENT_PREFIX = "KEYOP_"
CONFIG_VARIABLE = "KEYOP_CONFIG"
DATA_DIR_VARIABLE = "KEYOP_DATA_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Section ``storage``. The settings of whoever started the writer are those in force."""

    data_dir: str = ""
    """The data directory, made when it is missing."""

    sync_interval_ms: int = 0
    """0: publish returns after the sync (strict). Otherwise milliseconds from a write to the sync that covers it."""

    compaction_threshold_mb: int = 100
    """MiB at which a channel goes on in a new segment. Negative: never."""

    dead_letter_compaction_threshold_mb: int = 50
    """The same for ``*.dead-letter`` channels."""

    max_files: int = 10
    """Segments of a channel, with the active one. 0: no limit."""

    retention: float = 0.0
    """Seconds after its last write at which a sealed segment goes. 0: never."""

    offset_flush_interval_ms: int = 200
    """Milliseconds after which a subscriber's position stands in its offset file."""

    max_message_bytes: int = 10_485_760
    """The longest envelope, with its newline."""

    journal_mb: int = 8
    """MiB to which each of the two journal files may grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberSettings:
    """Section ``subscribers``: what a subscription does unless it says otherwise itself."""

    max_retries: int = 5
    """Attempts after the first, before a message becomes a dead letter. 0: one attempt only."""

    retry_backoff_base_ms: int = 100
    """Milliseconds before the first retry; each further wait is twice as long."""

    retry_backoff_max_ms: int = 5_000
    """The longest wait, in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """One entry of ``hub.allowed_peers``: who may connect, and to what. The first entry of a name counts."""

    name: str
    """The CN of the peer's certificate."""

    subscribe: tuple[str, ...] = ()
    """Channels that the peer may receive. Empty: any."""

    publish: tuple[str, ...] = ()
    """Channels that the peer may publish to. Empty: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Section ``hub``: accepting peers."""

    enabled: bool = False
    """Whether this instance is a hub."""

    listen_addr: str = ""
    """``:7740``, ``0.0.0.0:7740``, ``host:port``, ``[::]:7740``; port 0 takes a free one."""

    allowed_peers: tuple[PeerSettings, ...] = ()
    """Who may connect. Empty: nobody."""

    fed_client_offset_ttl: float = 604_800.0
    """Seconds after its disconnect at which a peer's position is forgotten. 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReference:
    """One entry of ``client.hubs``: a hub to connect to."""

    addr: str = ""
    """``host:port``, which also names the position's file. See `keyop.configuration.address`."""

    subscribe: tuple[str, ...] = ()
    """Channels to receive. Empty: none."""

    publish: tuple[str, ...] = ()
    """Channels to send. Empty: none."""

    expect_hub: str = ""
    """The CN that the hub's certificate must have. Empty: any that the CA has signed."""

    verify_hostname: bool = False
    """Whether the hub's certificate must also name the host in ``addr``."""

    max_bytes_per_s: int = 0
    """Bytes a second that may go to this hub. 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Section ``client``: connecting to hubs."""

    enabled: bool = False
    """Whether this instance connects to its hubs."""

    hubs: tuple[HubReference, ...] = ()
    """The hubs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Section ``tls``: paths of PEM files, all three needed by hub and client."""

    cert: str = ""
    """This instance's certificate; its CN is the instance's identity."""

    key: str = ""
    """The key that belongs to it."""

    ca: str = ""
    """The certificate of the authority that signs all peers."""

    expiry_warn_days: int = 30
    """Days before a certificate's end at which warnings begin. Negative: no warnings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """Section ``federation``: what hub and client have in common."""

    reconnect_base_ms: int = 500
    """Milliseconds before the first attempt to reconnect; each further wait is twice as long."""

    reconnect_max_ms: int = 60_000
    """The longest wait, in milliseconds."""

    reconnect_jitter: float = 0.2
    """The part of a wait, from 0 to 1, by which it is lengthened or shortened at random."""

    max_batch_bytes: int = 4_194_304
    """The longest batch to send, and the longest record to accept."""

    max_message_bytes: int = 33_554_432
    """The longest batch to accept, in bytes. It may hold many records."""

    max_message_records: int = 131_072
    """The most records in one batch to accept."""

    max_handshake_bytes: int = 65_536
    """The longest handshake to accept."""

    max_subscribe_names: int = 4_096
    """The most channels that a peer may ask for."""

    max_unfinished: int = 128
    """Connections to a hub that have not said their handshake yet, at one time."""

    max_peer_connections: int = 64
    """Connections to a hub with one certificate, at one time: a durable one, and ephemeral ones beside it."""

    handshake_timeout_ms: int = 10_000
    """Milliseconds for a peer's handshake."""

    ack_timeout_ms: int = 60_000
    """Milliseconds for a peer to commit a batch and acknowledge it."""

    drain_timeout_ms: int = 10_000
    """Milliseconds to finish what is under way at a stop."""

    ping_interval_ms: int = 20_000
    """Milliseconds between pings."""

    ping_timeout_ms: int = 60_000
    """Milliseconds for the answer to a ping. The Go program gives none while it waits for its disk."""

    window_batches: int = 8
    """Batches in flight between two peers of this kind, and batches of one peer that wait for their commit."""

    window_bytes: int = 8_388_608
    """The same in bytes: no batch is begun or taken beyond it."""

    compression: bool = False
    """Whether to compress messages on the wire, where the other side wants it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupSettings:
    """Section ``dedup``: recognising what was received before."""

    seen_id_lru_size: int = 100_000
    """Ids of received messages that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Section ``audit``: the federation's audit log."""

    max_size_mb: int = 100
    """MiB at which the log is rotated."""

    max_files: int = 10
    """Rotated files that are kept, besides the live one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcSettings:
    """Section ``ipc``: waiting for other processes."""

    spin_us: int = 50
    """Microseconds that writer and subscribers look on before they sleep. 0: they sleep at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """Section ``writer``: a writer process that was started on demand."""

    idle_exit: float = 30.0
    """Seconds without any process attached after which it leaves. 0: it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSettings:
    """Section ``dashboard``: the live view in a browser."""

    enabled: bool = False
    """Whether ``keyop up`` serves it."""

    listen_addr: str = "127.0.0.1:7741"
    """``host:port``; ``:port`` is every address of this host. Beyond localhost it needs `token_file`."""

    token_file: str = ""
    """A file whose first line is the token that a browser has to show. Empty: none is asked for."""

    allowed_hosts: tuple[str, ...] = ()
    """Names by which browsers may call this host, besides localhost, its addresses, and the host of `listen_addr`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Section ``metrics``: numbers for Prometheus."""

    enabled: bool = False
    """Whether ``keyop up`` serves them."""

    listen_addr: str = "127.0.0.1:9464"
    """``host:port``; ``:port`` is every address of this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One entry of ``workers``: processes that ``keyop up`` runs for an app."""

    app: str
    """``module:app``, as ``keyop worker`` takes it."""

    name: str = ""
    """What ``keyop status`` and ``keyop restart`` call it. Empty: the last part of the module's name."""

    processes: int = 1
    """How many processes share its work."""

    only: tuple[str, ...] = ()
    """The ids of the handlers to run. Empty: all of the app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process. Made by `keyop.config.Config.to_settings` or `keyop.configuration.lookup`."""

    name: str | None = None
    """``origin`` of messages and ``instance_name`` on the wire. None: the certificate's CN, else the host name."""

    storage: StorageSettings = StorageSettings()
    subscribers: SubscriberSettings = SubscriberSettings()
    hub: HubSettings = HubSettings()
    client: ClientSettings = ClientSettings()
    tls: TlsSettings = TlsSettings()
    federation: FederationSettings = FederationSettings()
    dedup: DedupSettings = DedupSettings()
    audit: AuditSettings = AuditSettings()
    ipc: IpcSettings = IpcSettings()
    writer: WriterSettings = WriterSettings()
    dashboard: DashboardSettings = DashboardSettings()
    metrics: MetricsSettings = MetricsSettings()
    workers: tuple[WorkerSettings, ...] = ()

    explicit: frozenset[str] = field(default=frozenset())
    """The dotted keys that somebody set, in file, environment or argument: ``storage.sync_interval_ms``."""

    config_file: str | None = None
    """The file that was read, for whoever wants to read it again when it changes."""

    def to_json(self) -> str:
        """Everything as one line of JSON, for a child process."""
        return json.dumps(asdict(self) | {"explicit": sorted(self.explicit)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote.

        A child may run another release than its parent when the package was updated in between: keys it does not know
        are passed over, missing ones get their defaults. Raises ValueError for what is no JSON object.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("settings are a JSON object")
        hub, client = values.get("hub", {}), values.get("client", {})
        hub["allowed_peers"] = tuple(_build(PeerSettings, peer) for peer in hub.get("allowed_peers", ()))
        client["hubs"] = tuple(_build(HubReference, reference) for reference in client.get("hubs", ()))
        workers = tuple(_build(WorkerSettings, worker) for worker in values.get("workers", ()))
        sections = {name: _build(kind, values.get(name, {})) for name, kind in SECTIONS.items()}
        explicit = frozenset(values.get("explicit", ()))
        config_file = values.get("config_file")
        return cls(name=values.get("name"), workers=workers, explicit=explicit, config_file=config_file, **sections)


SECTIONS: Mapping[str, type[Any]] = {
    "storage": StorageSettings,
    "subscribers": SubscriberSettings,
    "hub": HubSettings,
    "client": ClientSettings,
    "tls": TlsSettings,
    "federation": FederationSettings,
    "dedup": DedupSettings,
    "audit": AuditSettings,
    "ipc": IpcSettings,
    "writer": WriterSettings,
    "dashboard": DashboardSettings,
    "metrics": MetricsSettings,
}
"""The class of each section."""


def _build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known})
