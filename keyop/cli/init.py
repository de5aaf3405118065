"""``keyop init``."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from pathlib import Path

import click

from keyop.cli.paths import directories, files


@click.command("init")
@click.argument("file", default="keyop.yaml", shell_complete=files)
@click.option(
    "--data-dir", "-d", default="data", show_default=True, metavar="DIR", shell_complete=directories,
    help="The data directory, beside FILE if it is relative.",
)  # fmt: skip
@click.option("--hub", "is_hub", is_flag=True, help="Let other hosts in.")
@click.option("--client", "hub_address", metavar="ADDR", default="", help="Connect to this hub, host:port.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def command(file: str, data_dir: str, is_hub: bool, hub_address: str, force: bool) -> None:
    """Write a configuration with comments, for `keyop up`; FILE is keyop.yaml unless told.

    Asks nothing, and starts nothing. With --hub or --client it says which certificates are needed, and how to make
    them.

    \b
    Examples:
      keyop init && keyop up
      keyop init --hub /etc/keyop.yaml --data-dir /var/lib/keyop
      keyop init --client hub.example:7740
    """
    from keyop.configuration.starter import Starter

    path = Path(file).absolute()
    folder = path.parent
    name = _host_name()
    starter = Starter(
        data_dir=os.path.normpath(folder / data_dir),
        certificates=str(folder / name),
        ca=str(folder / "ca.crt"),
        is_hub=is_hub,
        hub_address=_checked(hub_address),
    )
    _write(path, starter.text(), force)
    click.echo(f"wrote {file}; `keyop up{'' if file == 'keyop.yaml' else f' -c {file}'}` runs it")
    if is_hub:
        click.echo(f"The hub needs certificates. In {folder}:")
        click.echo("  keyop keygen ca")
        click.echo(f"  keyop keygen instance --ca ca.crt --ca-key ca.key --name {name}")
        click.echo("and one more of the last kind for each host that is to connect, listed under hub.allowed_peers.")
    elif hub_address:
        click.echo(f"The client needs a certificate of the hub's CA: in {folder}, {name}.crt, {name}.key and ca.crt.")
        click.echo("Where the CA's key is:")
        click.echo(f"  keyop keygen instance --ca ca.crt --ca-key ca.key --name {name}")


def _checked(address: str) -> str:
    from keyop.configuration.address import checked_address

    if not address:
        return ""
    try:
        host, port = checked_address(address)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not host or not port:
        raise click.UsageError(f"--client {address}: needs a host and a port: hub.example:7740")
    return address


def _host_name() -> str:
    """As a name of files and of a certificate."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0]).strip("-") or "host"


def _write(path: Path, text: str, force: bool) -> None:
    """Whole or not at all, and over nothing unless told."""
    target = path.resolve()
    if not target.parent.is_dir():
        raise click.ClickException(f"{target.parent}: there is no such directory")
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as draft:
        try:
            os.fchmod(draft.fileno(), 0o644)
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            if force:
                os.replace(draft.name, target)
            else:
                os.link(draft.name, target)
        except FileExistsError:
            raise click.ClickException(f"{path}: is there already; --force replaces it") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft.name)
