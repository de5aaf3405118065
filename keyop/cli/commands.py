"""The commands by name. Each is imported when it is asked for: ``keyop version`` loads nothing of the others."""

from __future__ import annotations

import difflib
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from keyop.cli import exit_codes
from keyop.version import __version__

_NAMES = (
    "publish",
    "tail",
    "consume",
    "channels",
    "subscribers",
    "status",
    "top",
    "metrics",
    "dashboard",
    "init",
    "up",
    "restart",
    "stop",
    "dead-letter",
    "offsets",
    "export",
    "import",
    "channel",
    "verify",
    "doctor",
    "recover",
    "checkpoint",
    "writer",
    "worker",
    "hub",
    "client",
    "audit",
    "keygen",
    "service",
    "completion",
    "version",
)


def _module(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name.replace("-", "_")


class Commands(click.Group):
    """A group whose commands are modules: ``keyop.cli.publish`` has ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which somebody new needs them."""
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in _NAMES:
            return None
        command: click.Command = import_module(f"keyop.cli.{_module(cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name where there is no such command."""
        if args and args[0] not in _NAMES and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _NAMES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_NAMES)}"
            raise click.UsageError(f"no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    name="keyop",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=exit_codes.TEXT,
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", message="keyop %(version)s")
def commands(**_options: Any) -> None:
    """Durable publish/subscribe between processes and between hosts, without a broker.

    A data directory holds channels of messages, one JSON line each. It is named by --data-dir, KEYOP_DATA_DIR, or a
    configuration file (--config, KEYOP_CONFIG, else keyop.yaml in this directory).

    \b
    Examples:
      export KEYOP_DATA_DIR=./data
      keyop publish alerts '{"message": "hot"}' --type com.example.alert.v1
      keyop tail alerts -f
      keyop consume alerts --id mailer --exec ./send-mail
    """
