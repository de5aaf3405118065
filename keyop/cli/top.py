"""``keyop top``."""

from __future__ import annotations

import click

from keyop.cli.place import Place, as_json, at_place


@click.command("top")
@at_place
@click.option("--once", is_flag=True, help="Print what is there as plain tables, and end.")
@as_json
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks.",
)
def command(place: Place, once: bool, as_json: bool, interval: float) -> None:
    """Show live what happens in a data directory: channels, subscribers, peers, processes.

    Keys: 1 to 4 choose the table, Enter opens a channel's last messages, d its dead letters, s sorts, / filters,
    ? helps, q leaves. Reads shared memory and files only: attaches nothing, starts no writer. Where NO_COLOR is set, it
    uses no colours.

    --once looks twice, one interval apart, because rates need two looks.

    \b
    Examples:
      keyop top -d ./data
      keyop top -d ./data --once
      keyop top -d ./data --once --json | jq '.subscribers[] | select(.state == "stuck")'
    """
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    directory = place.directory()
    if not once:
        try:
            from keyop.top.watching import watch
        except ImportError as error:
            raise click.ClickException(f"this Python draws on no terminal ({error}): use keyop top --once") from error
        return watch(directory, interval_s=interval)
    from keyop.live.sampler import look_twice

    snapshot = look_twice(directory, interval_s=interval)
    if as_json:
        import json

        print(json.dumps(snapshot.to_json()))
        return None
    from keyop.top.printing import plain

    print(plain(snapshot))
    return None
