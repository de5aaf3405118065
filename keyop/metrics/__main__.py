"""``python -m keyop.metrics``: serves the metrics until SIGTERM or SIGINT.

Arguments are ``key=value``: ``settings_fd`` (an inherited file with the settings as JSON), ``log_format`` (text or
json), ``log_level``.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

from keyop.configuration.settings import Settings
from keyop.errors import KeyopError
from keyop.metrics.serving import REASON
from keyop.process_log import set_up_logging
from keyop.readiness import say_ready
from keyop.storage.directory import DataDirectory


def main(arguments: list[str]) -> int:
    """Serve; the exit code."""
    options = dict(argument.split("=", 1) for argument in arguments)
    with open(int(options["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    set_up_logging(options.get("log_format", "text"), options.get("log_level", "info"))
    try:
        from keyop.metrics.observer import Observer
        from keyop.metrics.server import MetricsServer

        directory = DataDirectory(settings.storage.data_dir)
        server = MetricsServer(settings.metrics.listen_addr, Observer(directory))
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        return _fail(REASON)
    except (KeyopError, OSError) as error:
        return _fail(str(error))
    stop = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logging.getLogger("keyop.metrics").info("serving %s", server.url)
    say_ready()
    signal.sigwait(stop)
    server.shutdown()
    with server.looking:  # whoever is being answered has asked before
        server.observer.close()
    return 0


def _fail(text: str) -> int:
    for line in text.splitlines():
        print(f"keyop metrics: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
