"""``python -m keyop.dashboard``: the dashboard as a child of ``keyop up``.

Arguments are ``key=value``: ``settings_fd`` (an inherited file with the settings as JSON), ``log_format`` (text or
json), ``log_level``.
"""

from __future__ import annotations

import logging
import sys

from keyop.configuration.settings import Settings
from keyop.dashboard.server import Options
from keyop.dashboard.serving import run
from keyop.errors import KeyopError
from keyop.process_log import set_up_logging
from keyop.storage.directory import DataDirectory


def main(arguments: list[str]) -> int:
    """Serve; the exit code, as of `keyop dashboard`."""
    given = dict(argument.split("=", 1) for argument in arguments)
    with open(int(given["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    set_up_logging(given.get("log_format", "text"), given.get("log_level", "info"))
    wanted = settings.dashboard
    options = Options(listen_addr=wanted.listen_addr, token_file=wanted.token_file, allowed_hosts=wanted.allowed_hosts)
    log = logging.getLogger("keyop.dashboard")
    try:
        run(DataDirectory(settings.storage.data_dir), options, lambda url: log.info("serving %s", url))
    except (KeyopError, OSError) as error:
        sys.stderr.write(f"keyop dashboard: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
