"""Every metric: its name, what it is, and its labels. `docs/metrics.md` says what to do with them."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

_CHANNEL = ("channel",)
_SUBSCRIBER = ("channel", "subscriber")
_PEER = ("role", "peer")


class Described(NamedTuple):
    """One metric. A counter's name has ``_total`` behind it in the exposition."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


CATALOGUE = (
    Described("keyop_build_info", "gauge", "1, with the version of keyop that looked.", ("version",)),
    Described("keyop_scrape_complete", "gauge", "0 where some of the files could not be read."),
    # ---- the writer
    Described("keyop_writer_up", "gauge", "Whether a writer runs. None is normal while nobody is attached."),
    Described("keyop_writer_state", "gauge", "1 for the state that the writer is in.", ("state",)),
    Described("keyop_writer_stalled", "gauge", "1 while the writer waits for a full or failing disk."),
    Described("keyop_writer_strict", "gauge", "1 if publish returns when the message is on the disk."),
    Described("keyop_writer_commits", "counter", "Group commits."),
    Described("keyop_writer_syncs", "counter", "Syncs of the journal."),
    Described("keyop_writer_checkpoints", "counter", "Journal files that were freed."),
    Described("keyop_writer_refused", "counter", "Transactions that the writer refused."),
    Described("keyop_writer_duplicates", "counter", "Messages of peers that were there already."),
    Described("keyop_writer_evicted_bytes", "counter", "Removed by max_files or retention before all had read it."),
    Described("keyop_writer_audit_dropped", "counter", "Lines that the audit log had no room for."),
    Described("keyop_writer_commit_seconds", "histogram", "Synced group commits, from the rings to the answers."),
    Described("keyop_writer_sync_seconds", "histogram", "Syncs of the journal: the disk."),
    # ---- room
    Described("keyop_storage_free_bytes", "gauge", "What the owner may still write to the data directory's disk."),
    Described("keyop_storage_size_bytes", "gauge", "Size of the data directory's file system."),
    Described("keyop_journal_bytes", "gauge", "Size of the journal's files and of what is spilled beside them."),
    Described("keyop_journal_at_rest", "gauge", "1 if the journal owes the other files nothing."),
    Described("keyop_shared_memory_free_bytes", "gauge", "What is free in /dev/shm."),
    Described("keyop_shared_memory_size_bytes", "gauge", "Size of /dev/shm."),
    Described("keyop_ring_fill_ratio", "gauge", "Of the fullest ring: 1 means that publish waits.", ("role",)),
    Described("keyop_processes", "gauge", "Attached processes.", ("role",)),
    # ---- channels
    Described("keyop_channel_messages", "counter", "Messages committed since the writer began.", _CHANNEL),
    Described("keyop_channel_appended_bytes", "counter", "All that was ever written to the channel.", _CHANNEL),
    Described("keyop_channel_stored_bytes", "gauge", "What its files hold now.", _CHANNEL),
    Described("keyop_channel_last_write_timestamp_seconds", "gauge", "When it was last written to.", _CHANNEL),
    Described("keyop_publish_to_disk_seconds", "histogram", "From publish until the message is synced.", _CHANNEL),
    # ---- subscribers
    Described("keyop_subscriber_attached", "gauge", "Processes that handle it now.", _SUBSCRIBER),
    Described("keyop_subscriber_lag_bytes", "gauge", "What the channel holds beyond its offset.", _SUBSCRIBER),
    Described("keyop_subscriber_lag_messages", "gauge", "The same in messages; an estimate if it is far.", _SUBSCRIBER),
    Described(
        "keyop_subscriber_oldest_pending_seconds", "gauge", "Age of its next message, 0 if there is none.", _SUBSCRIBER
    ),
    Described("keyop_subscriber_handled", "counter", "Messages whose handler returned.", _SUBSCRIBER),
    Described("keyop_subscriber_failed", "counter", "Attempts that raised.", _SUBSCRIBER),
    Described("keyop_subscriber_dead_lettered", "counter", "Messages that went to the dead letters.", _SUBSCRIBER),
    Described("keyop_subscriber_deferred", "counter", "Times that a handler raised RetryLater.", _SUBSCRIBER),
    Described("keyop_subscriber_damaged", "counter", "Records that could not be read.", _SUBSCRIBER),
    Described("keyop_subscriber_skipped_bytes", "counter", "Removed or too old before it was read.", _SUBSCRIBER),
    Described("keyop_delivery_age_seconds", "histogram", "From publish to the first run of the handler.", _SUBSCRIBER),
    Described("keyop_handler_seconds", "histogram", "Time of a handler, for each attempt.", _SUBSCRIBER),
    # ---- peers
    Described("keyop_peer_connected", "gauge", "1 if the peer is connected.", _PEER),
    Described("keyop_peer_refused", "gauge", "1 if the peer is there and does not let this host in.", _PEER),
    Described("keyop_peer_sent", "counter", "Messages that the peer has acknowledged.", _PEER),
    Described("keyop_peer_received", "counter", "Messages that the peer has brought.", _PEER),
    Described("keyop_peer_behind_bytes", "gauge", "What the peer has not acknowledged of its channels.", _PEER),
    Described("keyop_peer_waiting_bytes", "gauge", "What it has sent and what is not on the disk here yet.", _PEER),
    Described("keyop_peer_round_trip_seconds", "histogram", "A batch, from sending to acknowledgement.", _PEER),
)


def exposed_names(metric: Described) -> list[str]:
    """The names under which queries find it."""
    if metric.kind == "counter":
        return [f"{metric.name}_total"]
    if metric.kind == "histogram":
        return [f"{metric.name}_{suffix}" for suffix in ("bucket", "count", "sum")]
    return [metric.name]
