"""``keyop status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keyop.cli import exit_codes
from keyop.cli.place import Place, as_json, at_place
from keyop.cli.table import age, size, table

if TYPE_CHECKING:
    from keyop.inspection.overview import Overview
    from keyop.inspection.presence import AttachedProcess, LivePeer, LiveSubscription
    from keyop.inspection.survey import StatusReport
    from keyop.storage.directory import DataDirectory


@click.command("status")
@at_place
@as_json
def command(place: Place, as_json: bool) -> int:
    """Say whether a writer runs, in which state, what is there, who is attached, and how hub and client stand with
    their peers. `keyop channels` and `keyop subscribers` say more.

    Where a supervisor runs (`keyop up`), its processes too: restarts are those since it began, RSS is their memory,
    CPU what they have used of a core in the last seconds.

    Exit code 0: it runs; 3: it does not (which is normal while nobody is attached); 4: it is stalled, by a full or
    failing disk; 5: a process of the supervisor does not run. Starts nothing.

    \b
    Examples:
      keyop status -d ./data
      keyop status -d ./data --json | jq .writer_pid
    """
    from keyop.inspection import survey
    from keyop.inspection.overview import overview

    directory = place.directory()
    report = survey.status(directory)
    contents = overview(directory)
    supervisor = _supervisor(directory) if report.supervised else None
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(report) | {"contents": asdict(contents), "supervisor": supervisor}))
    else:
        print("\n".join([*_lines(report, contents), *(_processes(supervisor) if supervisor else [])]))
    if not report.running:
        return exit_codes.NOT_RUNNING
    if report.state == "stalled":
        return exit_codes.STALLED
    return exit_codes.DEGRADED if supervisor and supervisor["state"] != "up" else exit_codes.OK


def _supervisor(directory: DataDirectory) -> dict[str, Any] | None:
    """What it says; None where a writer alone holds the directory, or it does not answer."""
    from keyop.errors import KeyopError
    from keyop.supervisor.asking import ask

    try:
        return ask(directory, "status")
    except KeyopError:
        return None


def _processes(supervisor: dict[str, Any]) -> list[str]:
    headings = ("PROCESS", "STATE", "PID", "UPTIME", "RESTARTS", "RSS", "CPU")
    rows = [
        (
            row["role"],
            row["state"],
            None if row["pid"] is None else str(row["pid"]),
            None if row["pid"] is None else age(row["uptime_s"]),
            row["restarts"],
            None if row["rss_bytes"] is None else size(row["rss_bytes"]),
            None if row["cpu_percent"] is None else f"{row['cpu_percent']:.1f} %",
        )
        for row in supervisor["processes"]
    ]
    reasons = [f"{row['role']} {row['reason']}" for row in supervisor["processes"] if row["reason"]]
    return ["", table(headings, rows, left=2), *(line for reason in reasons for line in ["", *reason.splitlines()])]


def _lines(report: StatusReport, contents: Overview) -> list[str]:
    lines = [f"directory  {report.data_dir}", f"writer     {_writer(report)}"]
    lines.append(f"at rest    {'yes' if report.at_rest else 'no, the journal holds commits'}")
    lines.append(f"contents   {_contents(contents)}")
    living = [process for process in report.attached if process.alive]
    lines.append(f"attached   {len(living)}")
    for process in living:
        lines.append(f"           {_process(process)}")
        lines += [f"             {_peer(peer)}" for peer in process.peers]
    dead = len(report.attached) - len(living)
    if dead:
        lines.append(f"dead       {dead}, to be swept by the writer")
    if report.counters:
        lines.append("counters   " + ", ".join(f"{name} {total:,}" for name, total in report.counters.items()))
    return lines


def _contents(contents: Overview) -> str:
    channels = "1 channel" if contents.channels == 1 else f"{contents.channels:,} channels"
    subscribers = "1 subscriber" if contents.subscribers == 1 else f"{contents.subscribers:,} subscribers"
    text = f"{channels}, {size(contents.bytes)}; {subscribers}"
    furthest = contents.furthest
    if furthest is None:
        return text
    return f"{text}, {contents.behind:,} behind, most {furthest.channel}/{furthest.id} with {size(furthest.lag_bytes)}"


def _writer(report: StatusReport) -> str:
    if not report.running:
        return "not running" + (" (a supervisor looks after it)" if report.supervised else "")
    if report.state == "unseen":
        return f"runs, pid {report.writer_pid}, but with another /dev/shm or as another user: no more can be seen"
    mode = report.mode or ""
    if report.sync_interval_ms:
        mode += f" ({report.sync_interval_ms} ms)"
    stalled = f": {report.stalled}" if report.stalled else ""
    return f"{report.state}{stalled}, pid {report.writer_pid}, {mode}{', supervised' if report.supervised else ''}"


def _process(process: AttachedProcess) -> str:
    if process.role in ("hub", "client"):
        peers = "1 peer" if len(process.peers) == 1 else f"{len(process.peers)} peers"
        return f"pid {process.pid or '?'}  {process.role}, {peers}"
    names = ", ".join(f"{held.channel}/{held.id}{_part(held)}" for held in process.subscriptions)
    return f"pid {process.pid or '?'}  {process.role}{'  ' + names if names else ''}"


def _part(held: LiveSubscription) -> str:
    return f" (part {held.part} of {held.parts})" if held.parts > 1 else ""


def _peer(peer: LivePeer) -> str:
    name = f"{peer.name or '?'} ({peer.address})" if peer.address else peer.name
    since = "not seen yet" if peer.since_s is None else f"{peer.state} for {_age(peer.since_s)}"
    state = f"{name}  {since}"
    sent = f"sent {peer.sent:,}, behind {peer.behind_bytes:,} bytes{_last(peer.sent_ago_s)}"
    received = f"received {peer.received:,}{_last(peer.received_ago_s)}"
    if peer.waiting_bytes:
        received += f", {peer.waiting_bytes:,} bytes wait for the disk"
    if peer.state != "connected":
        return f"{state}; {sent}; {received}"
    pace = f"{peer.sent_per_min}/min out, {peer.received_per_min}/min in"
    trip = f", round trip {peer.round_trip_ms:.1f} ms" if peer.round_trip_ms is not None else ""
    return f"{state}; {sent}; {received}; {pace}{trip}"


def _last(ago_s: float | None) -> str:
    return "" if ago_s is None else f", last {_age(ago_s)} ago"


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, _ = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
