"""Paths on the command line: the shell itself completes them, where a command says that it wants one."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For the ``shell_complete`` of an argument or option that is a file, or begins with one."""
    return [CompletionItem(incomplete, type="file")]


def directories(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The same for a directory."""
    return [CompletionItem(incomplete, type="dir")]
