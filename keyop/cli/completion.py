"""``keyop completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from keyop.cli.running import COMPLETION_VARIABLE


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands, channels and subscriber ids in a shell.

    \b
    Examples:
      keyop completion bash > ~/.local/share/bash-completion/completions/keyop
      keyop completion zsh  > ~/.zfunc/_keyop        (with ~/.zfunc in fpath)
      keyop completion fish > ~/.config/fish/completions/keyop.fish
    """
    from keyop.cli.commands import commands

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(commands, {}, "keyop", COMPLETION_VARIABLE)
    # Not `source`: it starts bash to look at its version, which says nothing of the bash that will read this.
    print(completion.source_template % completion.source_vars())
