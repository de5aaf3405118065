"""The commands by name. Each is imported when it is asked for: ``keyop version`` loads nothing of the others."""

from __future__ import annotations

import difflib
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from keyop.cli import exit_codes
from keyop.version import __version__

_COMMANDS = {
    "Messages": {
        "publish": "Publish a message, or each line of standard input.",
        "tail": "Print the messages of a channel, with -f what comes too.",
        "consume": "Handle messages durably: print each, or run a command.",
    },
    "Looking on": {
        "channels": "List the channels: size, files, offsets, last write.",
        "subscribers": "List who reads what, and how far behind everybody is.",
        "status": "Say who is at work, in which state, and the peers.",
        "top": "Show live what happens, in the terminal.",
        "dashboard": "Show live what happens, in a browser.",
        "metrics": "Print or serve numbers for Prometheus.",
        "audit": "Print what passed between hosts, and what was refused.",
    },
    "Running": {
        "init": "Write a configuration with comments, for keyop up.",
        "up": "Run everything that a configuration asks for.",
        "restart": "Have keyop up start one of its processes again.",
        "stop": "Have keyop up stop everything, and wait for that.",
        "service": "Have systemd run keyop up.",
        "worker": "Run the handlers of an app.",
        "writer": "Be the writer of a data directory, in the foreground.",
        "hub": "Let other hosts in.",
        "client": "Connect to the hubs of other hosts.",
        "keygen": "Make the certificates for hubs and clients.",
    },
    "Mending and moving": {
        "dead-letter": "See, put back or discard what a subscriber gave up on.",
        "offsets": "Show where subscribers stand, move one, forget one.",
        "export": "Write the messages of a channel as lines of JSON.",
        "import": "Put what keyop export wrote into channels.",
        "channel": "Delete a channel.",
        "verify": "Check all files; --repair mends what can be mended.",
        "doctor": "Say what in this machine will hurt, and the way out.",
        "checkpoint": "Bring a directory to rest beside its writer, for a copy.",
        "recover": "Bring a directory to rest that nobody writes.",
    },
    "Others": {
        "completion": "Print the script with which a shell completes.",
        "version": "Say which version this is.",
    },
}
"""Under their headings, in the order in which somebody new needs them; the rest is in the command's own ``--help``."""
_SUMMARIES = {name: summary for group in _COMMANDS.values() for name, summary in group.items()}
_WIDTH = max(map(len, _SUMMARIES))


def _module(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name.replace("-", "_")


class Commands(click.Group):
    """A group whose commands are modules: ``keyop.cli.publish`` has ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which somebody new needs them."""
        return list(_SUMMARIES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under headings, and whole: click cuts the first sentence of each where the line ends."""
        for heading, group in _COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(_WIDTH), summary) for name, summary in group.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in _SUMMARIES:
            return None
        command: click.Command = import_module(f"keyop.cli.{_module(cmd_name)}").command
        command.short_help = _SUMMARIES[cmd_name]  # what a shell shows beside the name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name where there is no such command."""
        if args and args[0] not in _SUMMARIES and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _SUMMARIES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_SUMMARIES)}"
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
