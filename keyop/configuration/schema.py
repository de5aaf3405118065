"""The sections of a configuration, key by key; `docs/configuration.md` says what each means.

The defaults are those of `keyop.configuration.settings`, which a process without a configuration works with.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Annotated

from pydantic import Field, StrictBool, StrictStr, ValidationInfo, field_validator

from keyop.configuration.address import host_and_port, is_loopback
from keyop.configuration.reserved import warn_of_sent, warn_of_taken
from keyop.configuration.section import ZERO_COUNTS, Section
from keyop.configuration.settings import SECTIONS, HubReference, PeerSettings, Settings, WorkerSettings
from keyop.configuration.values import (
    AppName,
    Channel,
    Count,
    Days,
    Duration,
    FilePath,
    Fraction,
    HubAddress,
    JournalSize,
    Limit,
    ListenAddress,
    MessageBytes,
    Milliseconds,
    ProcessCount,
    RoleName,
    Signed,
    Spin,
    SubscriberId,
)

_log = logging.getLogger("keyop.config")

_default = Settings()
_reference = HubReference()
_worker = WorkerSettings(app="")


class Storage(Section):
    """Section ``storage``."""

    plain = SECTIONS["storage"]

    data_dir: Annotated[FilePath, Field(min_length=1)]
    sync_interval_ms: Milliseconds = _default.storage.sync_interval_ms
    compaction_threshold_mb: Signed = _default.storage.compaction_threshold_mb
    dead_letter_compaction_threshold_mb: Signed = _default.storage.dead_letter_compaction_threshold_mb
    max_files: Annotated[Limit, ZERO_COUNTS] = _default.storage.max_files
    retention: Duration = _default.storage.retention
    offset_flush_interval_ms: Milliseconds = _default.storage.offset_flush_interval_ms
    max_message_bytes: MessageBytes = _default.storage.max_message_bytes
    journal_mb: JournalSize = _default.storage.journal_mb


class Subscribers(Section):
    """Section ``subscribers``."""

    plain = SECTIONS["subscribers"]

    max_retries: Annotated[Count, ZERO_COUNTS] = _default.subscribers.max_retries
    retry_backoff_base_ms: Milliseconds = _default.subscribers.retry_backoff_base_ms
    retry_backoff_max_ms: Milliseconds = _default.subscribers.retry_backoff_max_ms


class Peer(Section):
    """An entry of ``hub.allowed_peers``."""

    plain = PeerSettings

    name: Annotated[StrictStr, Field(min_length=1)]
    subscribe: tuple[Channel, ...] = ()
    publish: tuple[Channel, ...] = ()


class Hub(Section):
    """Section ``hub``."""

    plain = SECTIONS["hub"]

    enabled: StrictBool = _default.hub.enabled
    listen_addr: Annotated[ListenAddress, Field(validate_default=True)] = _default.hub.listen_addr
    allowed_peers: tuple[Peer, ...] = ()
    fed_client_offset_ttl: Annotated[Duration, ZERO_COUNTS] = _default.hub.fed_client_offset_ttl

    @field_validator("listen_addr")
    @classmethod
    def _hub_listens(cls, listen_addr: str, info: ValidationInfo) -> str:
        if info.data.get("enabled") and not listen_addr:
            raise ValueError("must not be empty while hub.enabled is true: ':7740'")
        return listen_addr

    @field_validator("allowed_peers")
    @classmethod
    def _first_entry_counts(cls, allowed_peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
        for name, count in Counter(peer.name for peer in allowed_peers).items():
            if count > 1:
                _log.warning("hub.allowed_peers: %d entries are named %r; only the first counts", count, name)
        for peer in allowed_peers:
            warn_of_sent(f"hub.allowed_peers ({peer.name}): subscribe", peer.subscribe)
            warn_of_taken(f"hub.allowed_peers ({peer.name}): publish", peer.publish)
        return allowed_peers


class HubEntry(Section):
    """An entry of ``client.hubs``."""

    plain = HubReference

    addr: HubAddress = _reference.addr
    subscribe: tuple[Channel, ...] = ()
    publish: tuple[Channel, ...] = ()
    expect_hub: StrictStr = _reference.expect_hub
    verify_hostname: StrictBool = _reference.verify_hostname
    max_bytes_per_s: Count = _reference.max_bytes_per_s


class Client(Section):
    """Section ``client``."""

    plain = SECTIONS["client"]

    enabled: StrictBool = _default.client.enabled
    hubs: tuple[HubEntry, ...] = ()

    @field_validator("hubs")
    @classmethod
    def _reserved_names(cls, hubs: tuple[HubEntry, ...]) -> tuple[HubEntry, ...]:
        for hub in hubs:
            warn_of_taken(f"client.hubs ({hub.addr}): subscribe", hub.subscribe)
            warn_of_sent(f"client.hubs ({hub.addr}): publish", hub.publish)
        return hubs

    @field_validator("hubs")
    @classmethod
    def _hubs_have_addresses(cls, hubs: tuple[HubEntry, ...], info: ValidationInfo) -> tuple[HubEntry, ...]:
        without = [index for index, hub in enumerate(hubs) if not hub.addr]
        if info.data.get("enabled") and without:
            raise ValueError(f"entry {without[0]} has no addr, and client.enabled is true: addr: 'hub.example:7740'")
        return hubs


class Tls(Section):
    """Section ``tls``."""

    plain = SECTIONS["tls"]

    cert: FilePath = _default.tls.cert
    key: Annotated[FilePath, Field(validate_default=True)] = _default.tls.key
    ca: FilePath = _default.tls.ca
    expiry_warn_days: Days = _default.tls.expiry_warn_days

    @field_validator("key")
    @classmethod
    def _both_or_none(cls, key: str, info: ValidationInfo) -> str:
        if "cert" in info.data and bool(info.data["cert"]) != bool(key):
            raise ValueError("tls.cert and tls.key belong together: set both or none")
        return key


class Federation(Section):
    """Section ``federation``."""

    plain = SECTIONS["federation"]

    reconnect_base_ms: Milliseconds = _default.federation.reconnect_base_ms
    reconnect_max_ms: Milliseconds = _default.federation.reconnect_max_ms
    reconnect_jitter: Fraction = _default.federation.reconnect_jitter
    max_batch_bytes: Count = _default.federation.max_batch_bytes
    max_message_bytes: Count = _default.federation.max_message_bytes
    max_message_records: Count = _default.federation.max_message_records
    max_handshake_bytes: Count = _default.federation.max_handshake_bytes
    max_subscribe_names: Count = _default.federation.max_subscribe_names
    max_unfinished: Count = _default.federation.max_unfinished
    max_peer_connections: Count = _default.federation.max_peer_connections
    handshake_timeout_ms: Milliseconds = _default.federation.handshake_timeout_ms
    ack_timeout_ms: Milliseconds = _default.federation.ack_timeout_ms
    drain_timeout_ms: Milliseconds = _default.federation.drain_timeout_ms
    ping_interval_ms: Milliseconds = _default.federation.ping_interval_ms
    ping_timeout_ms: Milliseconds = _default.federation.ping_timeout_ms
    window_batches: Count = _default.federation.window_batches
    window_bytes: Count = _default.federation.window_bytes
    compression: StrictBool = _default.federation.compression


class Dedup(Section):
    """Section ``dedup``."""

    plain = SECTIONS["dedup"]

    seen_id_lru_size: Count = _default.dedup.seen_id_lru_size


class Audit(Section):
    """Section ``audit``."""

    plain = SECTIONS["audit"]

    max_size_mb: Count = _default.audit.max_size_mb
    max_files: Count = _default.audit.max_files


class Ipc(Section):
    """Section ``ipc``."""

    plain = SECTIONS["ipc"]

    spin_us: Annotated[Spin, ZERO_COUNTS] = _default.ipc.spin_us


class Writer(Section):
    """Section ``writer``."""

    plain = SECTIONS["writer"]

    idle_exit: Annotated[Duration, ZERO_COUNTS] = _default.writer.idle_exit


class Dashboard(Section):
    """Section ``dashboard``."""

    plain = SECTIONS["dashboard"]

    enabled: StrictBool = _default.dashboard.enabled
    listen_addr: Annotated[ListenAddress, Field(min_length=1)] = _default.dashboard.listen_addr
    token_file: Annotated[FilePath, Field(validate_default=True)] = _default.dashboard.token_file
    allowed_hosts: tuple[StrictStr, ...] = ()

    @field_validator("token_file")
    @classmethod
    def _strangers_need_a_token(cls, token_file: str, info: ValidationInfo) -> str:
        address = info.data.get("listen_addr")
        if info.data.get("enabled") and address and not token_file and not is_loopback(host_and_port(address)[0]):
            raise ValueError(f"is needed where others may connect: dashboard.listen_addr is {address!r}")
        return token_file


class Metrics(Section):
    """Section ``metrics``."""

    plain = SECTIONS["metrics"]

    enabled: StrictBool = _default.metrics.enabled
    listen_addr: Annotated[ListenAddress, Field(min_length=1)] = _default.metrics.listen_addr


class WorkerEntry(Section):
    """An entry of ``workers``."""

    plain = WorkerSettings

    app: AppName
    name: RoleName = _worker.name
    processes: ProcessCount = _worker.processes
    only: tuple[SubscriberId, ...] = ()


class Schema(Section):
    """The whole."""

    plain = Settings

    name: StrictStr = ""
    storage: Storage
    subscribers: Subscribers = Subscribers()
    hub: Hub = Hub()
    client: Client = Client()
    tls: Annotated[Tls, Field(validate_default=True)] = Tls()
    federation: Federation = Federation()
    dedup: Dedup = Dedup()
    audit: Audit = Audit()
    ipc: Ipc = Ipc()
    writer: Writer = Writer()
    dashboard: Dashboard = Dashboard()
    metrics: Metrics = Metrics()
    workers: tuple[WorkerEntry, ...] = ()

    @field_validator("workers")
    @classmethod
    def _workers_have_names_of_their_own(cls, workers: tuple[WorkerEntry, ...]) -> tuple[WorkerEntry, ...]:
        for name, count in Counter(worker.name for worker in workers if worker.name).items():
            if count > 1:
                raise ValueError(f"{count} entries are named {name!r}; give each a name of its own")
        return workers

    @field_validator("tls")
    @classmethod
    def _federation_needs_certificates(cls, tls: Tls, info: ValidationInfo) -> Tls:
        enabled = [key for key in ("hub", "client") if key in info.data and info.data[key].enabled]
        if enabled and not (tls.cert and tls.key and tls.ca):
            raise ValueError(f"cert, key and ca are needed while {enabled[0]}.enabled is true (see keyop keygen)")
        return tls
