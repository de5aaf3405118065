"""Names of channels and subscribers on the command line, completed from the data directory.

A shell waits for them at each press of the key: so directories are listed, and nothing else is imported or read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from keyop.cli.place import Place

_OFFSET_SUFFIX = ".offset"
_RESERVED_SUFFIXES = (".dead-letter", ".replay")
_PEER_PREFIXES = ("fed-", "fedout-")


class ChannelName(click.ParamType):  # type: ignore[type-arg]
    """A channel's name; the library checks it. ``reserved``: whether one that only keyop writes to will do."""

    name = "channel"

    def __init__(self, *, reserved: bool = True) -> None:
        self._reserved = reserved

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The channels that there are."""
        names = _names(ctx, "channels")
        wanted = (name for name in names if self._reserved or not name.endswith(_RESERVED_SUFFIXES))
        return _items(wanted, incomplete)


class SubscriberId(click.ParamType):  # type: ignore[type-arg]
    """A subscriber's id."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that the channel of the same command line knows; those of all channels where it names none yet."""
        # Of a line that is not finished click leaves arguments where they are.
        named = ctx.params.get("channel") or next((word for word in ctx.args if not word.startswith("-")), None)
        ids = {id for channel in ([named] if named else _names(ctx, "subscribers")) for id in _ids(ctx, channel)}
        return _items((id for id in ids if not id.startswith(_PEER_PREFIXES)), incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _ids(ctx: click.Context, channel: str) -> Iterator[str]:
    for name in _names(ctx, os.path.join("subscribers", channel)):
        if name.endswith(_OFFSET_SUFFIX):
            yield name.removesuffix(_OFFSET_SUFFIX)


def _names(ctx: click.Context, below: str) -> list[str]:
    """What lies in a part of the data directory, hidden files left out."""
    place = Place(ctx.params.get("data_dir"), ctx.params.get("config")).named_directory()
    try:
        return [name for name in os.listdir(os.path.join(place, below)) if not name.startswith(".")] if place else []
    except OSError:
        return []
