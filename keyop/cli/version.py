"""``keyop version``."""

from __future__ import annotations

import click

from keyop.version import __version__


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the versions of Python and the system.")
def command(as_json: bool) -> None:
    """Say which version this is.

    \b
    Examples:
      keyop version
      keyop version --json
    """
    if not as_json:
        print(f"keyop {__version__}")
        return
    import json
    import platform

    print(json.dumps({"version": __version__, "python": platform.python_version(), "platform": platform.platform()}))
