"""Runs a command of keyop in the foreground, and has it end when this process's standard input does.

``python -m demonstration.keeper hub -c host1.yaml``: a hub knows nothing of who started it, and would outlive a
demonstration that was killed.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from demonstration.crew import leave_signals_to_parent, until_told


def main(arguments: list[str]) -> int:
    """The command's exit code."""
    leave_signals_to_parent()
    # Ctrl-C reaches the whole group: in a session of its own the command hears of the end only from here.
    command = subprocess.Popen(
        [sys.executable, "-m", "keyop", *arguments], stdin=subprocess.DEVNULL, start_new_session=True
    )
    threading.Thread(target=lambda: (until_told(), command.terminate()), daemon=True).start()
    return command.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
