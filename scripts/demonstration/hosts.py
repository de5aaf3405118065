"""What each of the two hosts needs: a certificate, and a configuration file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from demonstration import ALERTS, READINGS

HUB, CLIENT = "host1", "host2"

_HUB = f"""\
storage: {{data_dir: {HUB}}}
tls: {{cert: {HUB}.crt, key: {HUB}.key, ca: ca.crt}}
hub:
  enabled: true
  listen_addr: 127.0.0.1:0         # any free port
  allowed_peers:
    - name: {CLIENT}                  # the CN in its certificate
      subscribe: [{READINGS}]        # what it may receive
      publish: [{ALERTS}]            # what it may send
"""
_CLIENT = f"""\
storage: {{data_dir: {CLIENT}}}
tls: {{cert: {CLIENT}.crt, key: {CLIENT}.key, ca: ca.crt}}
client:
  enabled: true
  hubs:
    - addr: ADDRESS          # the cable's end; it leads to {HUB}
      expect_hub: {HUB}
      subscribe: [{READINGS}]
      publish: [{ALERTS}]
federation: {{reconnect_max_ms: 1000}}  # do not wait long in a demonstration
"""


def keyop(place: Path, *arguments: str) -> str:
    """Run a command of keyop in a directory; what it prints. Raises `CalledProcessError`."""
    command = [sys.executable, "-m", "keyop", *arguments]
    return subprocess.run(command, cwd=place, check=True, stdout=subprocess.PIPE, text=True).stdout


def commands() -> list[list[str]]:
    """Those of keyop that make a CA and the two certificates."""
    sign = ["keygen", "instance", "--ca", "ca.crt", "--ca-key", "ca.key"]
    return [
        ["keygen", "ca"],
        [*sign, "--name", HUB, "--role", "hub"],
        [*sign, "--name", CLIENT, "--role", "client"],
    ]


def configure(place: Path, address: str) -> None:
    """Write both configuration files; ``address`` is where the client finds its hub."""
    (place / f"{HUB}.yaml").write_text(_HUB)
    (place / f"{CLIENT}.yaml").write_text(_CLIENT.replace("ADDRESS", address))
