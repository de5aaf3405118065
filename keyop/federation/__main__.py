"""``python -m keyop.federation hub|client``: see `keyop.federation.serving`.

Arguments are ``key=value``: ``settings_fd`` (an inherited file with the settings as JSON), ``log_format`` (text or
json), ``log_level``, ``is_child`` (0 or 1).
"""

from __future__ import annotations

import os
import sys

from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, FederationBusy, KeyopError
from keyop.federation.serving import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE, serve
from keyop.process_log import set_up_logging


def main(arguments: list[str]) -> int:
    """Run a hub or a client; its exit code."""
    role, *rest = arguments
    options = dict(argument.split("=", 1) for argument in rest)
    is_child = options.get("is_child") == "1"
    with open(int(options["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    set_up_logging(options.get("log_format", "text"), options.get("log_level", "info"))
    try:
        if role == "hub":
            from keyop.federation.hub import Hub

            serve("hub", Hub(settings), lambda address: f"listening at {address}", is_child=is_child)
        else:
            from keyop.federation.client import Client

            hubs = ", ".join(hub.addr for hub in settings.client.hubs)
            serve("client", Client(settings), lambda _: f"connecting to {hubs or 'no hub'}", is_child=is_child)
    except (KeyopError, OSError) as error:
        if is_child:
            print(type(error).__name__, error)  # the parent raises it again
        else:
            print(f"keyop {role}: {error}", file=sys.stderr)
        if isinstance(error, FederationBusy):
            return EXIT_UNAVAILABLE
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Daemon threads may sit in a semaphore: the interpreter's own shutdown would wait for nothing good.
    os._exit(code)
