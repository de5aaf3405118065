"""``python -m keyop.supervisor``: what ``keyop up`` becomes once the configuration is read.

Arguments are ``key=value``: ``settings_fd`` (an inherited file with the settings as JSON), ``log_format``,
``log_level``, ``grace`` (seconds), ``data_dir`` (what the command line said of it; empty: nothing).
"""

from __future__ import annotations

import gc
import sys

from keyop.configuration.settings import Settings
from keyop.errors import KeyopError, WriterBusy
from keyop.processes.output import Output
from keyop.supervisor.roles import Options
from keyop.supervisor.supervisor import Supervisor

EXIT_FAILED, EXIT_UNAVAILABLE = 1, 69
"""As those of keyop's other commands."""


def main(arguments: list[str]) -> int:
    """Run a supervisor; its exit code."""
    given = dict(argument.split("=", 1) for argument in arguments)
    with open(int(given["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    options = Options(log_format=given["log_format"], log_level=given["log_level"], grace_s=float(given["grace"]))
    try:
        supervisor = Supervisor(settings, options, Output(options.log_format), given["data_dir"] or None)
        gc.collect()
        gc.freeze()
        return supervisor.run()
    except (KeyopError, OSError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"keyop: {line}\n")
        return EXIT_UNAVAILABLE if isinstance(error, WriterBusy) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
