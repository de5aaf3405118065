"""The command line: ``keyop COMMAND``.

Each command has a file of its own, imported when it is used: it parses, calls one thing, and prints.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console script."""
    from keyop.cli.running import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
