"""``python -m keyop.workers``: one worker process, see `keyop.workers.worker`.

Arguments are ``key=value``: those of `keyop.workers.command`, and ``settings_fd``, an inherited file with the settings
as JSON.
"""

from __future__ import annotations

import logging
import os
import sys

from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, KeyopError, SubscriberBusy, WriterUnavailable
from keyop.process_log import set_up_logging
from keyop.workers.command import WorkerOptions
from keyop.workers.loading import load
from keyop.workers.worker import Worker

EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 2, 69, 130
"""As those of keyop's other commands."""


def main(arguments: list[str]) -> int:
    """Run a worker; its exit code."""
    given = dict(argument.split("=", 1) for argument in arguments)
    options = WorkerOptions.from_arguments(given)
    with open(int(given["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    # Before the import: what the app logs meanwhile is to be seen.
    set_up_logging(options.log_format, options.log_level, others=options.log_level)
    _look_here_first()
    try:
        Worker(load(options.app), settings, options).run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (KeyopError, OSError) as error:
        return _fail(error)
    except Exception:
        logging.getLogger("keyop.worker").exception("%s could not be started", options.app)
        return EXIT_FAILED
    return 0


def _look_here_first() -> None:
    """Modules of the current directory are found, also with ``python -P``."""
    here = os.getcwd()
    if sys.path[0] not in ("", here):
        sys.path.insert(0, here)
    else:
        sys.path[0] = here


def _fail(error: KeyopError | OSError) -> int:
    for line in str(error).splitlines():
        print(f"keyop worker: {line}", file=sys.stderr)
    if isinstance(error, (SubscriberBusy, WriterUnavailable)):
        return EXIT_UNAVAILABLE
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
