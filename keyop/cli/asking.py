"""Asking before something is done that cannot be taken back."""

from __future__ import annotations

import sys

import click


def agreed(question: str, yes: bool) -> bool:
    """Whether to go on: `--yes`, or somebody at a terminal says so. Where nobody can be asked, that is wrong usage."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes")
    return click.confirm(question, err=True)


as_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
