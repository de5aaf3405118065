"""Names of channels and subscribers on the command line, completed from the data directory."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from keyop.cli.place import Place
from keyop.errors import KeyopError
from keyop.storage.directory import DataDirectory


class ChannelName(click.ParamType):  # type: ignore[type-arg]
    """A channel's name; the library checks it."""

    name = "channel"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The channels that there are."""
        from keyop.inspection import survey

        directory = _directory(ctx)
        try:
            names = survey.channel_names(directory) if directory is not None else []
        except (KeyopError, OSError):
            names = []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class SubscriberId(click.ParamType):  # type: ignore[type-arg]
    """A subscriber's id."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that the channel of the same command line knows."""
        from keyop.inspection import survey

        directory = _directory(ctx)
        # Of a line that is not finished click leaves arguments where they are.
        channel = ctx.params.get("channel") or next((word for word in ctx.args if not word.startswith("-")), None)
        if directory is None or not channel:
            return []
        ids = survey.subscriber_ids(directory, channel)
        return [CompletionItem(id) for id in ids if id.startswith(incomplete)]


def _directory(ctx: click.Context) -> DataDirectory | None:
    """A shell that completes hears nothing of errors."""
    try:
        return Place(ctx.params.get("data_dir"), ctx.params.get("config")).directory()
    except (KeyopError, OSError, click.UsageError):
        return None
