"""The command line: ``keyop COMMAND``.

Each command has a file of its own, imported when it is used: it parses, calls one thing, and prints.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from keyop.cli.exit_codes import INTERRUPTED


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console script."""
    try:
        from keyop.cli.running import run

        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while it is imported, or between two of its steps
        code = INTERRUPTED
    sys.exit(code)
