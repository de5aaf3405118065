"""``keyop restart``."""

from __future__ import annotations

import time
from typing import Any

import click
from click.shell_completion import CompletionItem

from keyop.cli import exit_codes
from keyop.cli.moment import Seconds
from keyop.cli.place import Place, at_place

_LOOK_S = 0.1


def _roles(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those that run: ``billing`` as well as ``billing/1``."""
    from keyop.errors import KeyopError
    from keyop.storage.directory import DataDirectory
    from keyop.supervisor.asking import ask

    place = Place(ctx.params.get("data_dir"), ctx.params.get("config")).named_directory()
    try:
        rows = ask(DataDirectory(place), "status")["processes"][1:] if place else []
    except KeyopError:
        return []
    names = {name for row in rows for name in (row["role"], row["role"].partition("/")[0])}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


@click.command("restart")
@click.argument("role", shell_complete=_roles)
@at_place
@click.option(
    "--timeout", type=Seconds(), default="60", show_default=True, help="How long to wait until it is at work again."
)
def command(place: Place, role: str, timeout: float) -> int:
    """Have the supervisor of a data directory (`keyop up`) start a process again: it finishes what is in hand first.

    ROLE is writer, hub, client, metrics, dashboard, or the name of an entry of workers: all its processes, or NAME/2
    for the second of them. `keyop status` lists them. Waits until they do their work again.

    \b
    Examples:
      keyop restart hub -c keyop.yaml
      keyop restart billing/2 -d ./data

    \b
    Exit codes: 0 it works again; 1 there is no such role, or it cannot start; 69 no supervisor runs; 75 not within
    --timeout.
    """
    from keyop.supervisor.asking import ask

    directory = place.directory()
    before: dict[str, int] = ask(directory, "restart", role=role)["restarts"]
    deadline_s = time.monotonic() + timeout
    waiting = set(before)
    while waiting:
        for row in ask(directory, "status")["processes"]:
            name = row["role"]
            if name not in waiting or row["restarts"] <= before[name]:
                continue
            if row["state"] == "running":
                waiting.discard(name)
                click.echo(f"{name} is at work again, pid {row['pid']}")
            elif row["reason"]:
                return _failed(row)
        if waiting and time.monotonic() > deadline_s:
            click.echo(f"keyop: {', '.join(sorted(waiting))}: not at work within {timeout:g} s", err=True)
            return exit_codes.TEMPORARY
        if waiting:
            time.sleep(_LOOK_S)
    return exit_codes.OK


def _failed(row: dict[str, Any]) -> int:
    for line in f"{row['role']} {row['reason']}".splitlines():
        click.echo(f"keyop: {line}", err=True)
    click.echo("keyop: it is tried again and again; `keyop status` shows how it goes", err=True)
    return exit_codes.FAILED
