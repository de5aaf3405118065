"""The four tables: channels, subscribers, peers, processes."""

from __future__ import annotations

from keyop.live import figures
from keyop.live.snapshot import PeerView, SubscriberView
from keyop.top.table import Column, Style, Table


def _age(then: float | None, now: float) -> str:
    return "" if then is None else figures.age(max(0.0, now - then))


def _state_style(row: SubscriberView) -> Style:
    if row.state == "stuck" or row.fault:
        return Style.BAD
    return {"retrying": Style.WARN, "away": Style.DIM, "busy": Style.GOOD}.get(row.state, Style.PLAIN)


def _subscriber(row: SubscriberView) -> str:
    return f"{row.channel}/{row.id}" + (f" {row.parts_held} of {row.parts}" if row.parts > 1 else "")


def _lag_messages(row: SubscriberView) -> str:
    return f"{'' if row.lag_is_exact else '~'}{figures.count(row.lag_messages)}"


def _peer_style(row: PeerView) -> Style:
    return {"connected": Style.GOOD, "refused": Style.BAD}.get(row.state, Style.WARN)


def _is_bad(number: int | None) -> Style:
    return Style.WARN if number else Style.DIM


CHANNELS = Table(
    "Channels",
    lambda snapshot: snapshot.channels,
    lambda row: row.channel,
    lambda row: str(row.channel),
    (
        Column("CHANNEL", 0, lambda r, _: r.channel, lambda r: r.channel, right=False, descending=False),
        Column("MSG/S", 7, lambda r, _: figures.rate(r.messages_per_s), lambda r: r.messages_per_s or 0),
        Column(
            "BYTES/S", 7, lambda r, _: figures.size(r.bytes_per_s) if r.bytes_per_s else "", lambda r: r.bytes_per_s
        ),
        Column("SIZE", 6, lambda r, _: figures.size(r.bytes), lambda r: r.bytes),
        Column("SUBS", 4, lambda r, _: figures.count(r.subscribers), lambda r: r.subscribers),
        Column("LAST", 5, lambda r, now: _age(r.last_write_unix_s, now), lambda r: r.last_write_unix_s or 0),
        Column("LAST LOOKS", 16, lambda r, _: "", lambda r: sum(r.history), is_history=True),
    ),
    "No channels yet.",
)

SUBSCRIBERS = Table(
    "Subscribers",
    lambda snapshot: snapshot.subscribers,
    lambda row: (row.channel, row.id),
    lambda row: str(row.channel),
    (
        Column("CHANNEL/ID", 0, lambda r, _: _subscriber(r), lambda r: (r.channel, r.id), False, False),
        Column("STATE", 8, lambda r, _: r.state, lambda r: r.state, False, False, _state_style),
        Column("LAG", 6, lambda r, _: figures.size(r.lag_bytes), lambda r: r.lag_bytes),
        Column("MSGS", 7, lambda r, _: _lag_messages(r), lambda r: r.lag_messages),
        Column(
            "OLDEST",
            6,
            lambda r, now: _age(r.oldest_pending_unix_s, now),
            lambda r: -r.oldest_pending_unix_s if r.oldest_pending_unix_s is not None else -(2.0**63),
        ),
        Column("DONE/S", 6, lambda r, _: figures.rate(r.handled_per_s), lambda r: r.handled_per_s),
        Column(
            "FAIL", 5, lambda r, _: figures.count(r.failed), lambda r: r.failed or 0, style=lambda r: _is_bad(r.failed)
        ),
        Column(
            "DEAD",
            5,
            lambda r, _: figures.count(r.dead_lettered),
            lambda r: r.dead_lettered or 0,
            style=lambda r: _is_bad(r.dead_lettered),
        ),
    ),
    "Nobody has subscribed.",
)

PEERS = Table(
    "Peers",
    lambda snapshot: snapshot.peers,
    lambda row: (row.role, row.name, row.address),
    lambda row: None,
    (
        Column("PEER", 0, lambda r, _: f"{r.name or '?'} {r.address}", lambda r: r.name, False, False),
        Column("WE ARE", 6, lambda r, _: r.role, lambda r: r.role, False, False),
        Column("STATE", 9, lambda r, _: r.state, lambda r: r.state, False, False, _peer_style),
        Column("OUT/S", 6, lambda r, _: figures.rate(r.sent_per_s), lambda r: r.sent_per_s),
        Column("IN/S", 6, lambda r, _: figures.rate(r.received_per_s), lambda r: r.received_per_s),
        Column(
            "TRIP",
            7,
            lambda r, _: "" if r.round_trip_ms is None else f"{r.round_trip_ms:.1f}ms",
            lambda r: r.round_trip_ms or 0,
        ),
        Column("BEHIND", 6, lambda r, _: figures.size(r.behind_bytes), lambda r: r.behind_bytes),
        Column("WAITS", 6, lambda r, _: figures.size(r.waiting_bytes), lambda r: r.waiting_bytes),
    ),
    "No hub and no client runs here.",
)

PROCESSES = Table(
    "Processes",
    lambda snapshot: snapshot.processes,
    lambda row: (row.role, row.pid, row.work),
    lambda row: None,
    (
        Column("ROLE", 10, lambda r, _: r.role, lambda r: r.role, False, False),
        Column("PID", 7, lambda r, _: str(r.pid or "?"), lambda r: r.pid or 0, descending=False),
        Column(
            "CPU%",
            5,
            lambda r, _: "" if r.cpu_percent is None else f"{r.cpu_percent:.1f}",
            lambda r: r.cpu_percent or 0,
        ),
        Column(
            "RSS", 6, lambda r, _: "" if r.rss_bytes is None else figures.size(r.rss_bytes), lambda r: r.rss_bytes or 0
        ),
        Column("AGE", 5, lambda r, now: _age(r.started_unix_s, now), lambda r: -(r.started_unix_s or 0)),
        Column("WORK", 0, lambda r, _: r.work, lambda r: r.work, False, False),
    ),
    "Nobody is attached.",
)

TABLES = (CHANNELS, SUBSCRIBERS, PEERS, PROCESSES)
