"""``keyop service``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyop.cli.paths import files
from keyop.configuration.settings import CONFIG_VARIABLE

if TYPE_CHECKING:
    from keyop.service.unit import Unit


@click.group("service")
def command() -> None:
    """Have systemd run `keyop up`: at boot, again when it dies, shut off from what it does not need.

    A system unit (--system, for root the default) starts at boot; a user's (--user) when that user logs in, or at boot
    if the user lingers.

    \b
    Examples:
      keyop service show -c /etc/keyop.yaml
      keyop service install -c /etc/keyop.yaml
      keyop service uninstall
    """


def _whose(function: Callable[..., Any]) -> Callable[..., Any]:
    @click.option("--user/--system", "user", default=None, help="Of this user, or of the system.")
    @click.option("--name", default="keyop", show_default=True, help="The unit is called NAME.service.")
    @functools.wraps(function)
    def command(user: bool | None, **others: Any) -> Any:
        return function(is_system=os.geteuid() == 0 if user is None else not user, **others)

    return command


def _what(function: Callable[..., Any]) -> Callable[..., Any]:
    @click.option(
        "--config",
        "-c",
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        default="keyop.yaml",
        show_default=True,
        metavar="FILE",
        shell_complete=files,
        help="The configuration to run.",
    )
    @click.option(
        "--run-as", default="", metavar="USER", help="Of a system unit: who runs it. Unless told the data's owner."
    )
    @_whose
    @functools.wraps(function)
    def command(config: str, run_as: str, is_system: bool, name: str, **others: Any) -> Any:
        from keyop.service import description

        unit = description.describe(Path(config), name=name, is_system=is_system, run_as=run_as)
        for variable in description.foreign_variables():
            click.echo(
                f"keyop: {variable} is set here, and the service will not have it: put it into {config}", err=True
            )
        return function(unit, **others)

    return command


@command.command("show")
@_what
def show(unit: Unit) -> None:
    """Print the unit that `install` would write; write nothing.

    \b
    Examples:
      keyop service show -c keyop.yaml
      keyop service show -c keyop.yaml --system --run-as keyop
    """
    print(unit.text(), end="")


@command.command("install")
@click.option("--force", is_flag=True, help="Replace a unit that exists and differs.")
@_what
def install(unit: Unit, force: bool) -> None:
    """Write the unit, and say which commands to run next.

    A unit that exists and differs is left alone: exit code 1, and the difference. Relative paths in the configuration
    count from the directory in which this is typed. Nothing is started.

    \b
    Examples:
      keyop service install -c /etc/keyop.yaml --run-as keyop
      keyop service install --user --name sensors -c ~/sensors/keyop.yaml
    """
    from keyop.service import installation

    manager = installation.Manager(is_system=unit.is_system)
    changed = installation.install(unit, manager, force=force)
    print(f"{manager.directory / unit.file_name}: {'written' if changed else 'is there already, as it should be'}")
    _reload(manager)
    if unit.is_system and not unit.run_as:
        click.echo(
            f"keyop: it runs as root, because {unit.data_dir} is root's. Better: useradd --system keyop; "
            f"chown -R keyop {unit.data_dir}; keyop service install --force --run-as keyop",
            err=True,
        )
    print("Next:")
    if not unit.is_system:
        import pwd

        print(f"  loginctl enable-linger {pwd.getpwuid(os.geteuid()).pw_name}    (else it ends when you log out)")
    if not manager.runs:
        print(f"  {manager.command('daemon-reload')}")
    print(f"  {manager.command('enable', '--now', unit.name)}")
    print(f"  {manager.command('status', unit.name)}")
    print(f"  journalctl {'-u' if unit.is_system else '--user-unit'} {unit.name} -f")


@command.command("uninstall")
@click.option("--force", is_flag=True, help="Remove a unit that something else has written, too.")
@_whose
def uninstall(is_system: bool, name: str, force: bool) -> None:
    """Stop the service, disable it and remove its unit. Data and configuration stay.

    \b
    Examples:
      keyop service uninstall
      keyop service uninstall --user --name sensors
    """
    from keyop.service import installation

    manager = installation.Manager(is_system=is_system)
    name = name.removesuffix(".service")
    path = installation.uninstall(name, manager, force=force)
    print(f"{path}: removed; data and configuration are where they were")
    drop_ins = path.with_name(f"{path.name}.d")
    if drop_ins.is_dir():
        print(f"{drop_ins}: drop-ins, which stay")
    _reload(manager)
    if not manager.runs:
        print(f"Next:\n  {manager.command('disable', '--now', name)}\n  {manager.command('daemon-reload')}")


def _reload(manager: Any) -> None:
    from keyop.service.installation import ServiceError

    if manager.runs:
        try:
            manager.tell("daemon-reload")
        except ServiceError as error:
            click.echo(f"keyop: {error}", err=True)
