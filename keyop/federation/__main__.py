"""``python -m keyop.federation hub|client``: see `keyop.federation.serving`.

Arguments are ``key=value``: ``settings_fd`` (an inherited file with the settings as JSON), ``log_format`` (text or
json), ``log_level``.
"""

from __future__ import annotations

import os
import sys

from keyop.configuration.settings import Settings
from keyop.errors import ConfigError, FederationBusy, KeyopError
from keyop.federation.serving import serve, set_up_logging

# As keyop's other commands: wrong configuration, somebody else is in the way, anything else.
_EXIT_FAILED, _EXIT_USAGE, _EXIT_UNAVAILABLE = 1, 2, 69


def main(arguments: list[str]) -> int:
    """Run a hub or a client; its exit code."""
    role, *rest = arguments
    options = dict(argument.split("=", 1) for argument in rest)
    with open(int(options["settings_fd"]), "rb") as file:
        settings = Settings.from_json(file.read().decode())
    set_up_logging(options.get("log_format", "text"), options.get("log_level", "info"))
    try:
        if role == "hub":
            from keyop.federation.hub import Hub

            serve(Hub(settings), lambda address: f"listening at {address}")
        else:
            from keyop.federation.client import Client

            serve(Client(settings), lambda _: f"{len(settings.client.hubs)} hubs")
    except (KeyopError, OSError) as error:
        print(f"keyop {role}: {error}", file=sys.stderr)
        if isinstance(error, FederationBusy):
            return _EXIT_UNAVAILABLE
        return _EXIT_USAGE if isinstance(error, ConfigError) else _EXIT_FAILED
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Daemon threads may sit in a semaphore: the interpreter's own shutdown would wait for nothing good.
    os._exit(code)
