"""``keyop dashboard``."""

from __future__ import annotations

import click

from keyop.cli.paths import files
from keyop.cli.place import Place, at_place


@click.command("dashboard")
@at_place
@click.option(
    "--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.  [default: 127.0.0.1:7741]"
)
@click.option(
    "--token-file",
    metavar="FILE",
    shell_complete=files,
    help="The first line is a token that a browser has to show once, as /?token=TOKEN.",
)
@click.option("--allow-host", "allowed", multiple=True, metavar="NAME", help="A further name of this host. Repeatable.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser of this machine.")
def command(place: Place, listen: str | None, token_file: str | None, allowed: tuple[str, ...], opens: bool) -> None:
    """Show live in a browser what happens in a data directory: what keyop top shows in a terminal.

    Read-only: it changes nothing, attaches nothing, starts no writer. It listens on localhost; from another machine it
    is reached with ssh -L 7741:127.0.0.1:7741 HOST. Beyond localhost it needs --token-file. Runs until SIGTERM or
    Ctrl-C.

    \b
    Examples:
      keyop dashboard -d ./data --open
      keyop dashboard -c keyop.yaml --listen :7741 --token-file ./token
    """
    from keyop.cli.warnings import to_standard_error
    from keyop.dashboard.server import Options
    from keyop.dashboard.serving import run
    from keyop.storage.directory import DataDirectory

    to_standard_error()
    settings = place.settings()
    wanted = settings.dashboard
    options = Options(
        listen_addr=listen or wanted.listen_addr,
        token_file=token_file or wanted.token_file,
        allowed_hosts=(*wanted.allowed_hosts, *allowed),
    )

    def started(url: str) -> None:
        click.echo(f"keyop: the dashboard is at {url}", err=True)
        if opens:
            import threading
            import webbrowser

            # It waits for some browsers to end.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    run(DataDirectory(settings.storage.data_dir), options, started)
