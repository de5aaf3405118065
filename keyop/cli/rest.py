"""How ``recover`` and ``checkpoint`` report: whether the directory is at rest now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyop.inspection.at_rest import Rest


def report(rest: Rest, as_json: bool) -> None:
    """Print it."""
    if as_json:
        import json

        print(json.dumps(rest._asdict()))
        return
    for note in rest.notes:
        print(f"keyop: {note}", file=sys.stderr)
    print(_sentence(rest))


def _sentence(rest: Rest) -> str:
    if not rest.at_rest:
        return "not at rest: somebody published meanwhile; stop the writer (SIGTERM) for a backup"
    if rest.writer_runs:
        return f"at rest now; the writer (pid {rest.writer_pid}) runs on: at rest until somebody publishes or handles"
    if rest.attached:
        return f"at rest now; {rest.attached} attached processes start a writer again as soon as they need one"
    return "at rest: the directory can be copied, moved, or opened by another program"
